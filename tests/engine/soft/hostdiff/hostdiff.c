/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs cases, compares, reports; a worker process does it, so that nothing a case does to the host ends the run. */
#include "hostdiff.h"

#include <cpuid.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROWS = 4096, SHOW_PER_ROW = 3, SHOW_ALL = 60, STUCK_S = 20, SKIPPED = 77 /* to meson */ };

struct shared {
    _Atomic uint64_t at;        /* case in progress */
    uint64_t cases, insns, faults, failures, shown, undefined_differ;
    uint32_t ran[MAX_ROWS], passed[MAX_ROWS] /* without a fault */, failed[MAX_ROWS];
};

static struct shared *sh;
static uint64_t seed = 1, n_cases = 200000, first;
static int only_row = -1;
static unsigned only_bits;
static bool verbose;
static struct test_case *tc;
static struct outcome *ho, *go;

/* --- comparing --- */

struct diff {
    char text[2048];
    size_t n;
};

static void PRINTF_LIKE(2, 3) say(struct diff *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->text + d->n, sizeof(d->text) - d->n, fmt, ap);
    va_end(ap);
    if (n > 0) {
        d->n = d->n + (size_t)n < sizeof(d->text) ? d->n + (size_t)n : sizeof(d->text) - 1;
    }
}

static uint64_t fl_to_rflags(uint8_t fl)
{
    return (fl & FL_CF ? X86_CF : 0) | (fl & FL_PF ? X86_PF : 0) | (fl & FL_AF ? X86_AF : 0) | (fl & FL_ZF ? X86_ZF : 0) |
           (fl & FL_SF ? X86_SF : 0) | (fl & FL_OF ? X86_OF : 0);
}

/* The instruction that faulted on the host; the last one when none did. */
static unsigned stopped_at(void)
{
    unsigned k = 0;
    for (uint64_t rip = tc->in.rip; ho->vector >= 0 && k + 1 < tc->n && rip != ho->s.rip; k++) {
        rip += tc->insn[k].len;
    }
    return ho->vector >= 0 ? k : tc->n - 1;
}

/* A branch was taken to where nothing can be fetched counts as the fault of nobody: flags are those after the last one. */
static uint8_t undefined_flags(void)
{
    unsigned k = stopped_at();
    bool branched = ho->vector >= 0 && ho->s.rip - tc->in.rip >= tc->len;
    return ho->vector < 0 || branched ? tc->undefined[tc->n - 1] : k ? tc->undefined[k - 1] | insn_row(&tc->insn[k])->flags_u : insn_row(&tc->insn[0])->flags_u;
}

static void compare_fault(struct diff *d)
{
    uint32_t he = ho->error, ge = go->error;
    if (ho->vector == EXC_PF && ho->cr2 >= 0x7ffffffff000) {
        he &= ~(uint32_t)PF_P;  /* Linux hides what is mapped beyond its users' part */
    }
    const struct insn_row *r = insn_row(&tc->insn[stopped_at()]);
    uint64_t hc = ho->cr2, gc = go->cr2;
    if (r->mem_size >= MEM_X87ENV && r->mem_size <= MEM_XSAVE) {
        hc &= ~0xfffull;        /* areas are written in an order of the CPU's own */
        gc &= ~0xfffull;
        if (hc == gc + PG) {
            hc = gc;            /* ... which may begin at the far end, where the second page is missing as well */
        }
    }
    if (ho->vector != go->vector || he != ge || hc != gc) {
        say(d, "  fault: host %d err %x cr2 %" PRIx64 ", soft %d err %x cr2 %" PRIx64 "\n", ho->vector, he, ho->cr2, go->vector, ge, go->cr2);
    }
}

static void compare_regs(struct diff *d)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
    uint64_t mask = tc->bits == 64 ? ~0ull : 0xffffffff;
    for (unsigned i = 0; i < (tc->bits == 64 ? 16u : 8u); i++) {
        if ((ho->s.r[i] ^ go->s.r[i]) & mask) {
            say(d, "  %s: host %" PRIx64 ", soft %" PRIx64 "\n", names[i], ho->s.r[i], go->s.r[i]);
        }
    }
    if (ho->s.rip != go->s.rip) {
        say(d, "  rip: host %" PRIx64 ", soft %" PRIx64 "\n", ho->s.rip, go->s.rip);
    }
    uint64_t flags = X86_ARITH | X86_DF | X86_NT | X86_ID | X86_AC, open = fl_to_rflags(undefined_flags());
    uint64_t x = (ho->s.rflags ^ go->s.rflags) & flags;
    sh->undefined_differ += (x & open) != 0;
    if (x & ~open) {
        say(d, "  rflags: host %" PRIx64 ", soft %" PRIx64 " (differ %" PRIx64 ")\n", ho->s.rflags & flags, go->s.rflags & flags, x & ~open);
    }
    if (tc->bits == 64 && (ho->s.fs != go->s.fs || ho->s.gs != go->s.gs)) {
        say(d, "  fs, gs: host %" PRIx64 " %" PRIx64 ", soft %" PRIx64 " %" PRIx64 "\n", ho->s.fs, ho->s.gs, go->s.fs, go->s.gs);
    }
}

static void compare_bytes(struct diff *d, const char *what, unsigned n, const uint8_t *h, const uint8_t *s, unsigned bytes)
{
    if (memcmp(h, s, bytes) == 0) {
        return;
    }
    say(d, "  %s%u: host ", what, n);
    for (unsigned i = bytes; i-- > 0;) {
        say(d, "%02x", h[i]);
    }
    say(d, "\n  %*s soft ", (int)strlen(what) + 2, "");
    for (unsigned i = bytes; i-- > 0;) {
        say(d, "%02x", s[i]);
    }
    say(d, "\n");
}

static void compare_vec(struct diff *d)
{
    const uint8_t *h = ho->s.xsave, *s = go->s.xsave;
    if (memcmp(h, s, 5) != 0) {
        say(d, "  fcw fsw ftw: host %04x %04x %02x, soft %04x %04x %02x\n", load_le16(h), load_le16(h + 2), h[4], load_le16(s), load_le16(s + 2), s[4]);
    }
    /* AMD shows them only with an exception pending (FNSTENV tells all the same), and makes loaded ones canonical */
    unsigned op = insn_row(&tc->insn[0])->op;
    bool hidden = op == OP_FXRSTOR || op == OP_XRSTOR || (load_le64(h + 8) == 0 && !(load_le16(h + 2) & 0x80));
    if (!hidden && (load_le16(h + 6) != load_le16(s + 6) || load_le64(h + 8) != load_le64(s + 8) || load_le64(h + 16) != load_le64(s + 16))) {
        say(d, "  fop fip fdp: host %x %" PRIx64 " %" PRIx64 ", soft %x %" PRIx64 " %" PRIx64 "\n", load_le16(h + 6), load_le64(h + 8),
            load_le64(h + 16), load_le16(s + 6), load_le64(s + 8), load_le64(s + 16));
    }
    if (load_le32(h + 24) != load_le32(s + 24)) {
        say(d, "  mxcsr: host %x, soft %x\n", load_le32(h + 24), load_le32(s + 24));
    }
    for (unsigned i = 0; i < 8; i++) {
        compare_bytes(d, "st", i, h + 32 + 16 * i, s + 32 + 16 * i, 10);
    }
    for (unsigned i = 0; i < 16; i++) {
        compare_bytes(d, "xmm", i, h + 160 + 16 * i, s + 160 + 16 * i, 16);
        compare_bytes(d, "ymm-upper", i, h + 576 + 16 * i, s + 576 + 16 * i, 16);
    }
}

/*
 * In areas written by FXSAVE, XSAVE, FNSTENV and their like. MXCSR_MASK: the guest is not offered AMD's misaligned mode
 * (bit 17). FCS and FDS: the guest is told that they are always 0.
 */
static bool tolerated(const uint8_t *h, const uint8_t *s, unsigned off)
{
    unsigned at = off & ~3u;
    if (load_le32(h + at) == 0x2ffff && load_le32(s + at) == 0xffff) {
        return true;
    }
    unsigned envs = 0;
    for (unsigned k = 0; k < tc->n; k++) {
        unsigned m = insn_row(&tc->insn[k])->mem_size;
        envs += m == MEM_X87ENV || m == MEM_X87SAVE || m == MEM_FX512 || m == MEM_XSAVE;
    }
    /* two of them: the first may have loaded any selector */
    return envs && s[off] == 0 && (envs > 1 || h[off] == 0x33 || h[off] == 0x23 || h[off] == 0x2b || h[off] == SEL_CODE16 || h[off] == SEL_DATA16 ||
                    h[off] == SEL_DATA32);
}

/* Compares memory and puts both copies back; true when they were equal. */
static void compare_mem(struct diff *d, bool open)
{
    uint8_t *h = host_mem(), *s = guest_mem();
    unsigned said = 0;
    for (unsigned page = 0; page < AR_PAGES; page++) {
        unsigned at = page * PG;
        if (!page_writable(page)) {
            continue;
        }
        if (memcmp(h + at, s + at, PG) != 0) {
            for (unsigned i = at; i < at + PG; i++) {
                if (h[i] != s[i] && !open && !tolerated(h, s, i) && said++ < 16) {
                    say(d, "  [%x]: host %02x, soft %02x (was %02x)\n", AR + i, h[i], s[i], pristine[i]);
                }
            }
        }
        if (memcmp(h + at, pristine + at, PG) != 0) {
            memcpy(h + at, pristine + at, PG);
        }
        if (memcmp(s + at, pristine + at, PG) != 0) {
            memcpy(s + at, pristine + at, PG);
        }
    }
}

/* --- one case --- */

static void print_case(void)
{
    uint64_t rip = tc->in.rip;
    unsigned at = 0;
    for (unsigned k = 0; k < tc->n; k++) {
        char text[128];
        printf("  %" PRIx64 ": ", rip + at);
        for (unsigned i = 0; i < tc->insn[k].len; i++) {
            printf("%02x", tc->code[at + i]);
        }
        printf("  %s\n", insn_format(&tc->insn[k], tc->bits == 64 ? INSN_MODE_64 : tc->bits == 32 ? INSN_MODE_32 : INSN_MODE_16, rip + at, text, sizeof(text)));
        at += tc->insn[k].len;
    }
    for (unsigned i = 0; i < (tc->bits == 64 ? 16u : 8u); i++) {
        printf("%s%2u=%016" PRIx64, i % 4 ? " " : "  in ", i, tc->in.r[i]);
        if (i % 4 == 3) {
            printf("\n");
        }
    }
    printf("  in rflags %" PRIx64 " fs %" PRIx64 " gs %" PRIx64 " fcw %04x fsw %04x mxcsr %x\n", tc->in.rflags, tc->in.fs, tc->in.gs,
           load_le16(tc->in.xsave), load_le16(tc->in.xsave + 2), load_le32(tc->in.xsave + 24));
}

static void apply_patches(void)
{
    for (unsigned i = 0; i < tc->n_patches; i++) {
        store_le64(host_mem() + (tc->patch[i].lin - AR), tc->patch[i].val);
        store_le64(guest_mem() + (tc->patch[i].lin - AR), tc->patch[i].val);
    }
}

static unsigned bits_of(uint64_t number)
{
    if (only_bits) {
        return only_bits;
    }
    return number % 8 == 5 && host_has_ldt() ? 16 : number % 4 == 3 && host_has_32() ? 32 : 64;
}

static bool segs_of(uint64_t number)
{
    return number % 8 == 7 && host_has_ldt();
}

/*
 * The choices below were worked out on AMD's CPUs (Zen 4). Elsewhere differences are printed all the same, but a run that
 * has some is skipped and not failed until somebody has told choices from mistakes there.
 */
static bool cpu_verified(void)
{
    unsigned a, b, c, d;
    enum { HYGON_EBX = 0x6f677948 };    /* "Hygo" */
    return __get_cpuid(0, &a, &b, &c, &d) && (b == signature_AMD_ebx || b == HYGON_EBX);
}

/* Where CPUs differ among themselves. */
static bool cpus_choice(const struct insn_row *r)
{
    bool fault = ho->vector >= 0 || go->vector >= 0, both = ho->vector == EXC_PF && go->vector == EXC_PF;
    if (load_le32(ho->s.xsave + 24) >> 16 && go->vector == EXC_GP) {
        return true;            /* AMD's MXCSR.MM was loaded; the guest has none */
    }
    switch (r->op) {
    case OP_MASKMOV:
        return fault;           /* an empty mask may fault or not, and a fault be at any selected byte */
    case OP_CMPS:
        return both;            /* which operand is read first */
    case OP_CALL:
        return ho->vector >= 0 && go->vector == EXC_GP;     /* target not canonical and stack not writable: which first */
    case OP_ARPL:
        return ho->vector != EXC_GP && go->vector == EXC_GP;    /* is a code segment refused although nothing may be written? */
    case OP_MOVSX:
        return fault && insn_row(&tc->insn[stopped_at()])->opcode == 0x63;     /* MOVSXD to 16 bits: reads 2 (Intel) or 4 bytes (AMD) */
    case OP_BOUND:
        return ho->vector == EXC_PF && go->vector == EXC_SS;    /* over the end of 4 GiB: two pieces or one */
    default:
        return false;
    }
}

/* A random return address may point into the jump that leads the host out of the case: its middle is another instruction. */
static bool lands_in_exit(void)
{
    uint64_t end = tc->in.rip + tc->len;
    return go->vector < 0 && go->s.rip > end && go->s.rip < end + EXIT_SIZE;
}

static void run_case(uint64_t number)
{
    struct diff d = {.n = 0};
    gen_case(tc, seed, number, only_row, bits_of(number), segs_of(number));
    apply_patches();
    host_run(tc, ho);
    guest_run(tc, go);
    if (lands_in_exit()) {
        return;
    }
    const struct insn_row *r = insn_row(&tc->insn[stopped_at()]);
    bool open = cpus_choice(r);
    if (!open) {
        compare_fault(&d);
        compare_regs(&d);
        compare_vec(&d);
    }
    compare_mem(&d, open);
    sh->cases++;
    sh->insns += tc->n;
    sh->faults += ho->vector >= 0;
    for (unsigned k = 0; k < tc->n; k++) {
        sh->ran[tc->insn[k].row]++;
        sh->passed[tc->insn[k].row] += ho->vector < 0 || tc->n > 1;
    }
    if (!d.n && !verbose) {
        return;
    }
    unsigned row = tc->insn[tc->n - 1].row;
    if (d.n) {
        sh->failures++;
        sh->failed[row]++;
    }
    if (verbose || (sh->failed[row] <= SHOW_PER_ROW && sh->shown < SHOW_ALL)) {
        sh->shown++;
        printf("%s case %" PRIu64 " (--seed %" PRIu64 " --first %" PRIu64 " --cases 1%s), %u-bit%s:\n", d.n ? "DIFFERENT" : "equal", number, seed,
               number, only_bits ? " --bits" : "", tc->bits, tc->segs ? ", segments" : "");
        print_case();
        printf("%s", d.text);
        fflush(stdout);
    }
}

/* --- worker and supervisor --- */

static int worker(uint64_t from, uint64_t to)
{
    uint64_t feats = host_feats();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    gen_pristine();
    gen_init(feats);
    guest_init(feats);
    if (!host_init()) {
        fprintf(stderr, "hostdiff: cannot map low memory for the cases: %s\n", strerror(errno));
        return 2;
    }
    tc = aligned_alloc(64, sizeof(*tc));
    ho = aligned_alloc(64, sizeof(*ho));
    go = aligned_alloc(64, sizeof(*go));
    for (uint64_t n = from; n < to; n++) {
        atomic_store(&sh->at, n);
        run_case(n);
    }
    return 0;
}

/* Waits for the worker; kills it when one case takes STUCK_S seconds. */
static int wait_for(pid_t pid)
{
    uint64_t last = ~0ull;
    for (unsigned idle = 0;; ) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        usleep(50000);
        uint64_t at = atomic_load(&sh->at);
        idle = at == last ? idle + 1 : 0;
        last = at;
        if (idle > STUCK_S * 20) {
            kill(pid, SIGKILL);
        }
    }
}

static void report(double seconds)
{
    unsigned total = 0, covered = 0, clean = 0;
    gen_init(host_feats());
    for (unsigned row = 0; row < n_insn_rows; row++) {
        if (!gen_row_eligible(row, 64) && !gen_row_eligible(row, 32)) {
            continue;
        }
        total++;
        covered += sh->ran[row] != 0;
        clean += sh->passed[row] != 0;
        if (!sh->ran[row] && only_row < 0 && sh->cases > 100000) {
            printf("not covered: row %u %s\n", row, insn_rows[row].name);
        }
    }
    for (unsigned row = 0; row < n_insn_rows; row++) {
        if (sh->failed[row]) {
            printf("failed %6u of %6u: row %u %s\n", sh->failed[row], sh->ran[row], row, insn_rows[row].name);
        }
    }
    printf("hostdiff: seed %" PRIu64 ": %" PRIu64 " cases, %" PRIu64 " instructions, %" PRIu64 " faults, %" PRIu64 " different, "
           "%" PRIu64 " differ in undefined flags; rows covered %u of %u, %u without a fault; %.1f s, %.0f cases/s\n",
           seed, sh->cases, sh->insns, sh->faults, sh->failures, sh->undefined_differ, covered, total, clean, seconds,
           (double)sh->cases / (seconds > 0 ? seconds : 1));
}

static void usage(void)
{
    fprintf(stderr, "usage: hostdiff [--seed N|time] [--cases N (0: endless)] [--first N] [--row ROW|MNEMONIC] [--bits 16|32|64] [--verbose]\n");
    exit(2);
}

static int find_row(const char *s)
{
    char *end;
    long n = strtol(s, &end, 10);
    if (!*end && n >= 0 && n < (long)n_insn_rows) {
        return (int)n;
    }
    for (unsigned row = 0; row < n_insn_rows; row++) {
        if (insn_rows[row].name && strcmp(insn_rows[row].name, s) == 0) {
            return (int)row;
        }
    }
    usage();
    return -1;
}

static void options(int argc, char **argv)
{
    static const struct option opts[] = {{"seed", 1, NULL, 's'}, {"cases", 1, NULL, 'c'}, {"first", 1, NULL, 'f'}, {"row", 1, NULL, 'r'},
                                         {"bits", 1, NULL, 'b'}, {"verbose", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        switch (c) {
        case 's': seed = strcmp(optarg, "time") ? strtoull(optarg, NULL, 0) : (uint64_t)time(NULL); break;
        case 'c': n_cases = strtoull(optarg, NULL, 0); break;
        case 'f': first = strtoull(optarg, NULL, 0); break;
        case 'r': only_row = find_row(optarg); break;
        case 'b': only_bits = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'v': verbose = true; break;
        default: usage();
        }
    }
}

int main(int argc, char **argv)
{
    options(argc, argv);
    sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED || n_insn_rows > MAX_ROWS) {
        return 2;
    }
    printf("hostdiff: seed %" PRIu64 "\n", seed);
    fflush(stdout);
    uint64_t to = n_cases ? first + n_cases : UINT64_MAX, from = first;
    unsigned deaths = 0;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    while (from < to && deaths < 10) {
        pid_t pid = fork();
        if (pid == 0) {
            int r = worker(from, to);
            fflush(stdout);
            _exit(r);
        }
        int status = wait_for(pid);
        if (WIFEXITED(status)) {
            if (WEXITSTATUS(status)) {
                return WEXITSTATUS(status);
            }
            break;
        }
        uint64_t at = atomic_load(&sh->at);
        printf("DIED case %" PRIu64 " (--seed %" PRIu64 " --first %" PRIu64 " --cases 1): signal %d\n", at, seed, at, WTERMSIG(status));
        fflush(stdout);
        sh->failures++;
        deaths++;
        from = at + 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    report((double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
    if (sh->failures && !cpu_verified() && !deaths) {
        printf("hostdiff: these choices were never verified on a CPU of this vendor: skipped\n");
        return SKIPPED;
    }
    return sh->failures ? 1 : 0;
}
