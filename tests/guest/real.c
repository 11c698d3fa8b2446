/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real mode; the code is in real16.S. Sources: SDM vol. 3A 20 (8086 emulation), 5.3 (limits). TCG checks no limits. */
#include "rt/rt.h"

enum { BASE = 0x20000, NONE = 0xffff };
extern const char real_T[], real_end[], real_stubs[], real_fn[], real_vec[], real_flags[], real_count[], real_result[];
void real_call(void);

static volatile uint16_t *var16(const char *sym) { return (volatile uint16_t *)(BASE + (sym - real_T)); }

static uint32_t run(const char *test)
{
    *var16(real_fn) = (uint16_t)(test - real_T);
    real_call();
    return *(volatile uint32_t *)(BASE + (real_result - real_T));
}

#define T(name) extern const char name[]
T(t_int); T(t_int_if); T(t_div); T(t_int3); T(t_into); T(t_bound); T(t_ud); T(t_limit_byte); T(t_limit_word); T(t_limit_dword); T(t_limit_stack);
T(t_limit_32); T(t_push_wrap); T(t_push_sp); T(t_high); T(t_popf); T(t_lods_wrap); T(t_stos_wrap); T(t_far); T(t_iret32); T(t_ip_wrap); T(t_arpl);
T(t_lar); T(t_sldt); T(t_ltr); T(t_verr); T(t_mov_cs); T(t_idt_limit); T(t_step); T(t_smsw); T(t_cr0); T(t_loop); T(t_lss); T(t_unreal); T(t_hlt);

static void setup(void)
{
    memcpy((void *)BASE, real_T, (size_t)(real_end - real_T));
    gdt[SEL_FREE / 8] = seg_desc(BASE, 0xffff, 0x9b, 0);
    gdt[SEL_FREE / 8 + 1] = seg_desc(BASE, 0xffff, 0x93, 0);
    volatile uint32_t *ivt;
    __asm__("" : "=r"(ivt) : "0"(0));                       /* address 0, unknown to the compiler */
    for (unsigned i = 0; i < 128; i++) {
        ivt[i] = (uint32_t)(BASE >> 4) << 16 | (uint32_t)(real_stubs - real_T + 8 * i);
    }
    static const uint8_t jump[] = { 0xeb, 0x20 };           /* FFF0: JMP to 10012, which is 0012 */
    memcpy((void *)(BASE + 0xfff0), jump, sizeof(jump));
}

static void vectors(void)
{
    static const struct { const char *test; unsigned vec; uint32_t result; const char *name; } t[] = {
        { t_int, 0x60, 0, "INT n through the IVT; IP behind it" }, { t_div, DE, 0, "#DE; IP at the DIV" }, { t_int3, BP, 0, "INT3" },
        { t_into, OF, 0, "INTO" }, { t_bound, BR, 0, "BOUND" }, { t_ud, UD, 0, "UD2" }, { t_limit_byte, NONE, 0, "the byte at FFFF" },
        { t_limit_word, GP, 0, "a word at FFFF" }, { t_limit_dword, GP, 0, "a dword at FFFD" }, { t_limit_stack, SS, 0, "a word at FFFF by BP" },
        { t_limit_32, GP, 0, "a 32-bit offset above FFFF" }, { t_arpl, UD, 0, "ARPL" }, { t_lar, UD, 0, "LAR" }, { t_sldt, UD, 0, "SLDT" },
        { t_ltr, UD, 0, "LTR" }, { t_verr, UD, 0, "VERR" }, { t_mov_cs, UD, 0, "MOV to CS" }, { t_idt_limit, GP, 0, "INT n beyond the IVT's limit" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        uint32_t r = run(t[i].test);
        check_hw(*var16(real_vec) << 16 | r, t[i].vec << 16 | t[i].result, t[i].name);
    }
    (void)run(t_int);
    check_eq(*var16(real_flags) & 3, 3, "FLAGS are pushed");
    check_eq(run(t_int_if) & FL_IF, FL_IF, "IRET restores IF");
}

static void behaviour(void)
{
    check_eq(run(t_push_wrap), 0xfffe1234, "PUSH at SP = 0 wraps to FFFE");
    check_eq(run(t_push_sp), 0, "PUSH SP pushes the old value");
    check_eq(run(t_high), *(volatile uint32_t *)0x100000, "FFFF:0010 is 1 MiB");
    check_eq(run(t_popf) & 0x247000, 0x247000, "POPFD: IOPL, NT, AC and ID");
    check_eq(run(t_lods_wrap), 0, "SI wraps");
    check_eq(run(t_stos_wrap), 2, "REP STOSB wraps DI");
    check(*(volatile uint16_t *)0x3fffe == 0x5a5a && *(volatile uint16_t *)0x30000 == 0x5a5a, "and writes both ends");
    check_eq(run(t_far), 0x00660000, "far CALL and RET n");
    check_eq(run(t_iret32), 0x99, "IRETD");
    check_eq(run(t_ip_wrap), 0x77, "a jump wraps IP at 64 KiB");
    check_eq(run(t_step), 6, "single-step: not between MOV SS and the next instruction");
    check_eq(run(t_smsw), 0, "SMSW: PE is clear");
    check_eq(run(t_cr0), 0, "MOV from CR0");
    check_eq(run(t_loop), 3, "LOOP counts in CX");
    check_eq(run(t_lss), 0x10003000, "LSS");
    *(volatile uint32_t *)0x600000 = 0x12340000;
    check_eq(run(t_unreal), 0x24680000, "unreal mode: the limit of 4 GiB stays, also over a new base");
    check_eq(*var16(real_vec), NONE, "and nothing faulted");
    outb(0x20, 0x11);
    outb(0x21, 0x70);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0x43, 0x34);
    outb(0x40, 1193 & 255);
    outb(0x40, 1193 >> 8);
    outb(0x21, 0xfe);
    check_eq(run(t_hlt), 0x70, "STI; HLT woken by the timer");
    outb(0x21, 0xff);
}

void guest_main(void)
{
    setup();
    vectors();
    behaviour();
}
