/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SSE and AVX numeric exceptions that the guest does not mask. The thunk runs with the guest's own MXCSR; the host CPU
 * then raises exactly what the guest's would (tiny exact results with UM=0, pre- against post-computation flags), as
 * SIGFPE inside the code buffer. The handler reads MXCSR from the signal frame, gives the thread its usual FPU control
 * words back and sends it to a RET: a thunk has nothing on the stack and had written nothing when its instruction
 * faulted. A SIGFPE from anywhere else goes to whoever had the signal before.
 */
#include "engine/soft/native/native-int.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

struct fpe_run {
    const struct code_buf *buf;
    uint32_t mxcsr;
    volatile bool hit;
};

static _Thread_local struct fpe_run *fpe_active;        /* not NULL only around the call of a thunk */
static _Thread_local bool fpe_unblocked;
static struct sigaction fpe_previous;

static void fpe_pass_on(int sig, siginfo_t *si, void *uc)
{
    if (fpe_previous.sa_flags & SA_SIGINFO) {
        fpe_previous.sa_sigaction(sig, si, uc);
    } else if (fpe_previous.sa_handler != SIG_DFL && fpe_previous.sa_handler != SIG_IGN) {
        fpe_previous.sa_handler(sig);
    } else {
        signal(sig, SIG_DFL);   /* the instruction faults again and the process ends as it would have */
    }
}

static void fpe_handler(int sig, siginfo_t *si, void *arg)
{
    ucontext_t *uc = arg;
    struct fpe_run *run = fpe_active;
    if (!run || !code_buf_contains(run->buf, (uint64_t)uc->uc_mcontext.gregs[REG_RIP])) {
        fpe_pass_on(sig, si, arg);
        return;
    }
    struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    run->mxcsr = fp->mxcsr;
    run->hit = true;
    fp->mxcsr = MXCSR_INIT;
    fp->cwd = FCW_INIT;
    fp->swd = 0;
    fp->ftw = 0;                /* abridged: all empty */
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)code_buf_ret(run->buf);
}

/* Again for each vCPU: whoever took the signal meanwhile (a test's framework) becomes the one we pass on to. */
void fpe_init(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct sigaction now, sa = {.sa_sigaction = fpe_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    pthread_mutex_lock(&lock);
    if (sigaction(SIGFPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO && now.sa_sigaction == fpe_handler)) {
        fpe_previous = now;
        sigaction(SIGFPE, &sa, NULL);
    }
    pthread_mutex_unlock(&lock);
}

/* vCPU threads are started with signals blocked, and a blocked SIGFPE of one's own making kills. */
static void fpe_unblock(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGFPE);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    fpe_unblocked = true;
}

bool fpe_run(struct soft_cpu *c, thunk_fn *fn, void *mem)
{
    struct fpe_run run = {.buf = c->vm->code_buf};
    if (!fpe_unblocked) {
        fpe_unblock();
    }
    fpe_active = &run;
    atomic_signal_fence(memory_order_seq_cst);
    host_set_mxcsr(load_le32(xs(c, XS_MXCSR)) & MXCSR_VALID);
    fn(c, mem);
    uint32_t after = host_mxcsr();
    host_set_mxcsr(MXCSR_INIT);
    atomic_signal_fence(memory_order_seq_cst);
    fpe_active = NULL;
    store_le32(xs(c, XS_MXCSR), run.hit ? run.mxcsr : after);
    return run.hit;
}

void fpe_raise(struct soft_cpu *c)
{
    cpu_raise(c, c->st.cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}
