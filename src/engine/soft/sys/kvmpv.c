/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM's paravirtual interface: clock, PV EOI, steal time (for PV TLB flush), hypercalls.
 * Sources: kernel Documentation/virt/kvm/x86/{msr,hypercalls,cpuid}.rst, arch/x86/include/asm/pvclock-abi.h.
 *
 * The clock record is static: (tsc_timestamp, system_time) is one pair of VM TSC and VM clock taken once, shared by all
 * vCPUs, so that their clocks agree to the bit; both stand still while the VM is paused.
 */
#include <sched.h>
#include <time.h>

#include "engine/soft/sys/sys-int.h"
#include "x86/msr.h"

enum { PVCLOCK_STABLE = 1, KVM_HC_KICK_CPU = 5, KVM_HC_CLOCK_PAIRING = 9, KVM_HC_SEND_IPI = 10, KVM_HC_SCHED_YIELD = 11 };
enum { KVM_ENOSYS = 1000, KVM_EFAULT = 14, KVM_EOPNOTSUPP = 95, KVM_EPERM = 1, KVM_EINVAL = 22 };
enum { STEAL_VERSION = 8, STEAL_PREEMPTED = 16, STEAL_SIZE = 64, VCPU_PREEMPTED = 1, VCPU_FLUSH_TLB = 2 };

/* ns = (ticks shifted by `shift`) * mul >> 32 */
static void clock_scale(uint64_t khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = khz * 1000, scaled = NS_PER_SEC;
    int8_t s = 0;
    while (hz > scaled * 2 || hz >> 32) {
        hz >>= 1;
        s--;
    }
    while (hz <= scaled) {
        hz <<= 1;
        s++;
    }
    *mul = (uint32_t)muldiv64(scaled, 1ull << 32, hz);
    *shift = s;
}

static void take_ref(struct soft_vm *vm)
{
    uint64_t tsc = vm_tsc(vm), ns = vm_clock_ns(vm->clock);
    pthread_mutex_lock(&vm->tsc.lock);
    if (!vm->tsc.have_ref) {
        vm->tsc.ref_tsc = tsc;
        vm->tsc.ref_ns = ns;
        vm->tsc.have_ref = true;
    }
    pthread_mutex_unlock(&vm->tsc.lock);
}

void pv_clock_write(struct soft_cpu *c)
{
    uint8_t rec[32] = { 0 };
    uint32_t version = 0, mul;
    int8_t shift;
    c->pv_stale = false;
    if (!(c->st.kvm_system_time & 1)) {
        return;
    }
    gpa_t gpa = c->st.kvm_system_time & ~1ull;
    struct soft_vm *vm = c->vm;
    take_ref(vm);
    clock_scale(vm->tsc_khz ? vm->tsc_khz : 1000000, &mul, &shift);
    mem_read_le32(vm->mem, gpa, &version);
    version = (version | 1) + 2;            /* odd: being written */
    store_le32(rec, version);
    store_le64(rec + 8, vm->tsc.ref_tsc + c->st.tsc_offset);
    store_le64(rec + 16, vm->tsc.ref_ns);
    store_le32(rec + 24, mul);
    rec[28] = (uint8_t)shift;
    rec[29] = PVCLOCK_STABLE;
    if (mem_write(vm->mem, gpa, rec, sizeof(rec))) {
        mem_write_le32(vm->mem, gpa, version + 1);
    }
}

static void wall_clock_write(struct soft_cpu *c, gpa_t gpa)
{
    struct timespec now;
    uint8_t rec[12];
    uint32_t version = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec - vm_clock_ns(c->vm->clock);
    mem_read_le32(c->vm->mem, gpa, &version);
    store_le32(rec, (version | 1) + 1);
    store_le32(rec + 4, (uint32_t)(ns / NS_PER_SEC));
    store_le32(rec + 8, (uint32_t)(ns % NS_PER_SEC));
    mem_write(c->vm->mem, gpa, rec, sizeof(rec));
}

bool pv_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case MSR_KVM_WALL_CLOCK: case MSR_KVM_WALL_CLOCK_NEW: *val = c->st.kvm_wall_clock; return true;
    case MSR_KVM_SYSTEM_TIME: case MSR_KVM_SYSTEM_TIME_NEW: *val = c->st.kvm_system_time; return true;
    case MSR_KVM_STEAL_TIME: *val = c->st.kvm_steal_time; return true;
    case MSR_KVM_PV_EOI_EN: *val = c->st.kvm_pv_eoi; return true;
    case MSR_KVM_POLL_CONTROL: *val = c->st.kvm_poll_control; return true;
    default: return false;          /* asynchronous page faults are not offered */
    }
}

static bool steal_time_write(struct soft_cpu *c, uint64_t val)
{
    if (val & 0x3e) {
        return false;
    }
    c->st.kvm_steal_time = val;
    if (val & 1) {
        mem_zero(c->vm->mem, val & ~1ull, STEAL_PREEMPTED + 1);
    }
    return true;
}

bool pv_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case MSR_KVM_WALL_CLOCK: case MSR_KVM_WALL_CLOCK_NEW:
        c->st.kvm_wall_clock = val;
        wall_clock_write(c, val);
        return true;
    case MSR_KVM_SYSTEM_TIME: case MSR_KVM_SYSTEM_TIME_NEW:
        c->st.kvm_system_time = val;
        pv_clock_write(c);
        return true;
    case MSR_KVM_STEAL_TIME:
        return steal_time_write(c, val);
    case MSR_KVM_PV_EOI_EN:
        if (val & 2) {
            return false;
        }
        pv_eoi_sync(c);
        c->st.kvm_pv_eoi = val;
        return true;
    case MSR_KVM_POLL_CONTROL:
        if (val & ~1ull) {
            return false;
        }
        c->st.kvm_poll_control = val;
        return true;
    default:
        return false;
    }
}

/* --- PV EOI: bit 0 of a guest word means "clear me instead of writing EOI" --- */

/*
 * Settles an offer made earlier: bit clear, the guest made its EOI; bit set, it is withdrawn and the guest will write EOI.
 * Only this vCPU's guest code touches the word, and this runs on its thread or while it is parked.
 */
void pv_eoi_sync(struct soft_cpu *c)
{
    uint8_t word = 0;
    if (!c->pv_eoi_pending) {
        return;
    }
    c->pv_eoi_pending = false;
    gpa_t gpa = c->st.kvm_pv_eoi & ~3ull;
    if (!mem_read(c->vm->mem, gpa, &word, 1)) {
        return;
    }
    if (word & 1) {
        word &= ~1u;
        mem_write(c->vm->mem, gpa, &word, 1);
    } else {
        lapic_eoi(c);
    }
}

/* After an edge interrupt was delivered with nothing else waiting. */
void pv_eoi_offer(struct soft_cpu *c)
{
    uint8_t word = 0;
    gpa_t gpa = c->st.kvm_pv_eoi & ~3ull;
    c->pv_eoi_pending = false;
    if ((c->st.kvm_pv_eoi & 1) && mem_read(c->vm->mem, gpa, &word, 1)) {
        word |= 1;
        c->pv_eoi_pending = mem_write(c->vm->mem, gpa, &word, 1);
    }
}

/* --- steal time record: only `preempted` is used, so that a sleeping vCPU gets no TLB-flush IPIs --- */

static _Atomic uint8_t *preempted_byte(struct soft_cpu *c)
{
    gpa_t gpa = c->st.kvm_steal_time & ~63ull;
    const struct memslot *s = c->st.kvm_steal_time & 1 ? mem_slot_find(c->vm->mem, gpa) : NULL;
    if (!s || s->readonly) {
        return NULL;            /* 64-aligned, so the record is in one page */
    }
    return (_Atomic uint8_t *)(s->hva + (gpa - s->gpa) + STEAL_PREEMPTED);
}

void sys_sleep_begin(struct soft_cpu *c)
{
    _Atomic uint8_t *p = preempted_byte(c);
    if (p) {
        atomic_store(p, VCPU_PREEMPTED);
        mem_written(c->vm->mem, (c->st.kvm_steal_time & ~63ull) + STEAL_PREEMPTED, 1);
    }
}

void sys_sleep_end(struct soft_cpu *c)
{
    _Atomic uint8_t *p = preempted_byte(c);
    if (p && (atomic_exchange(p, 0) & VCPU_FLUSH_TLB)) {
        mmu_flush_all(c);
    }
}

/* --- hypercalls --- */

/* Bitmap of 64 (128 in 64-bit mode) APIC ids from `min` on. Returns how many took the interrupt. */
static int64_t hc_send_ipi(struct soft_cpu *c, uint64_t low, uint64_t high, uint32_t min, uint32_t icr)
{
    unsigned width = cpu_code64(c) ? 64 : 32;
    int64_t n = 0;
    if (icr & 0xc0800) {
        return -KVM_EINVAL;             /* no shorthand, no logical destination */
    }
    for (unsigned i = 0; i < 2 * width; i++) {
        if ((i < width ? low >> i : high >> (i - width)) & 1) {
            struct lapic_msg m = { .vector = (uint8_t)icr, .mode = icr >> 8 & 7, .assert_ = true, .wide = true, .dest = min + i };
            n += lapic_send(c->vm, &m, c, 0);
        }
    }
    return n;
}

static int64_t hc_clock_pairing(struct soft_cpu *c, gpa_t gpa, uint64_t type)
{
    uint8_t rec[64] = { 0 };
    struct timespec now;
    if (type != 0) {
        return -KVM_EOPNOTSUPP;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    store_le64(rec, (uint64_t)now.tv_sec);
    store_le64(rec + 8, (uint64_t)now.tv_nsec);
    store_le64(rec + 16, sys_read_tsc(c));
    return mem_write(c->vm->mem, gpa, rec, sizeof(rec)) ? 0 : -KVM_EFAULT;
}

static int64_t hc_kick(struct soft_cpu *c, uint32_t id)
{
    for (unsigned i = 0; i < c->vm->n_cpus; i++) {
        struct soft_cpu *t = c->vm->cpus[i];
        if (t->st.lapic.id == id) {
            atomic_store(&t->pv_kicked, true);
            cpu_pend(t, PEND_IRQ);
            cpu_wake(t);
        }
    }
    return 0;
}

void pv_hypercall(struct soft_cpu *c)
{
    uint64_t mask = cpu_code64(c) ? ~0ull : 0xffffffff;
    uint64_t nr = c->r[R_AX] & mask, a0 = c->r[R_BX] & mask, a1 = c->r[R_CX] & mask, a2 = c->r[R_DX] & mask, a3 = c->r[R_SI] & mask;
    int64_t ret = -KVM_ENOSYS;
    if (!c->model->kvm_pv) {
        cpu_raise(c, EXC_UD);
    }
    if (c->cpl != 0) {
        ret = -KVM_EPERM;
    } else {
        switch (nr) {
        case KVM_HC_KICK_CPU: ret = hc_kick(c, (uint32_t)a1); break;
        case KVM_HC_CLOCK_PAIRING: ret = hc_clock_pairing(c, a0, a1); break;
        case KVM_HC_SEND_IPI: ret = hc_send_ipi(c, a0, a1, (uint32_t)a2, (uint32_t)a3); break;
        case KVM_HC_SCHED_YIELD: sched_yield(); ret = 0; break;
        default: break;
        }
    }
    c->r[R_AX] = (uint64_t)ret & mask;
}
