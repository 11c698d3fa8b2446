/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtual-8086 mode. Source: SDM vol. 3A 20.2 to 20.3. Its code lies at 30000, its stack below 40000. */
#include "rt/rt.h"

enum { CODE = 0x30000, VSEG = CODE >> 4, MAGIC = 0x5a17 };
static uint32_t v86_flags = FL_VM | 2;
ulong v86_enter(uint32_t flags, uint32_t sp);
/* As user_enter, but to VSEG:0 in virtual-8086 mode with all segments VSEG. */
__asm__(".text\n v86_enter: movl 4(%esp), %eax\n movl 8(%esp), %edx\n pushl %ebx\n pushl %ebp\n pushl %esi\n pushl %edi\n pushfl\n"
        " movl %esp, user_return_sp\n movl %esp, tss + 4\n pushl $0x3000\n pushl $0x3000\n pushl $0x3000\n pushl $0x3000\n pushl $0x3000\n pushl %edx\n"
        " pushl %eax\n pushl $0x3000\n pushl $0\n iretl\n");

static ulong run(const void *code, unsigned len)
{
    memset((void *)CODE, 0xf4, 64);                 /* HLT ends what goes astray: #GP */
    memcpy((void *)CODE, code, len);
    return v86_enter(v86_flags, 0xfff0);
}
#define RUN(...) ({ static const uint8_t c_[] = { __VA_ARGS__ }; run(c_, sizeof(c_)); })
static bool at(unsigned ip) { return caught.ip == ip && caught.cs == VSEG && caught.flags & FL_VM; }

static void iopl3(void)
{
    v86_flags = FL_VM | FL_IOPL | 2;
    gate_set(&idt[0x55], (ulong)trap_stubs + 0x55 * 16, SEL_CODE, GATE_INT, 3, 0);
    check_eq(RUN(0xb8, 0x17, 0x5a, 0xcd, 0x55), 0x55, "INT n with IOPL 3 goes through the IDT");
    check(at(5), "from virtual-8086 code, behind the INT");
    check_eq(caught.ax & 0xffff, MAGIC, "16-bit code ran");
    check_eq(caught.ss & 0xffff, VSEG, "SS is pushed");
    check_eq(caught.sp & 0xffff, 0xfff0, "SP is pushed");
    check_eq(RUN(0xfb, 0xfa, 0x9c, 0x58, 0xcd, 0x55), 0x55, "STI, CLI, PUSHF with IOPL 3");
    check_eq(caught.ax & FL_IF, 0, "IF is clear after CLI");
    check_eq(RUN(0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xbb, 0x00, 0x02, 0xc7, 0x07, 0x34, 0x12, 0xcd, 0x55), 0x55, "MOV DS and a store");
    check_eq(*(volatile uint16_t *)0x20200, 0x1234, "the segment is its paragraph");
    check_eq(RUN(0xea, 0x10, 0x00, 0x00, 0x30), GP, "a far jump by paragraph");
    check(at(0x10), "arrived");
    check_eq(RUN(0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, 0xcd, 0x55), 0x55, "32-bit operands");
    check_eq(caught.ax, 0x12345678, "all of EAX");
}

static void faults(void)
{
    static const struct { uint8_t len, b[6]; ulong vec; const char *name; } t[] = {
        { 1, { 0xf4 }, GP, "HLT" }, { 3, { 0x0f, 0x20, 0xc0 }, GP, "MOV from CR0" }, { 2, { 0x0f, 0x0b }, UD, "UD2" },
        { 3, { 0x0f, 0x00, 0xc0 }, UD, "SLDT" }, { 3, { 0x0f, 0x02, 0xc0 }, UD, "LAR" }, { 2, { 0x63, 0xc0 }, UD, "ARPL" },
        { 2, { 0xe4, 0x80 }, GP, "IN: the bitmap decides whatever IOPL is" }, { 2, { 0x0f, 0x06 }, GP, "CLTS" }, { 2, { 0x0f, 0x30 }, GP, "WRMSR" },
        { 1, { 0xcc }, BP, "INT3" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        check_eq(run(t[i].b, t[i].len), t[i].vec, t[i].name);
    }
    check_hw(RUN(0xa1, 0xff, 0xff), GP, "a word at FFFF");      /* TCG checks no limits */
    v86_flags = FL_VM | 2;
    check_eq(RUN(0xcd, 0x55), GP, "INT n with IOPL 0");
    check_eq(caught.error, 0, "error code");
    check_eq(RUN(0xfa), GP, "CLI with IOPL 0");
    check_eq(RUN(0xfb), GP, "STI with IOPL 0");
    check_eq(RUN(0x9c), GP, "PUSHF with IOPL 0");
    check_eq(RUN(0x9d), GP, "POPF with IOPL 0");
    check_eq(RUN(0xcf), GP, "IRET with IOPL 0");
    check_eq(RUN(0xcc), BP, "INT3 does not look at IOPL");
}

void guest_main(void)
{
    iopl3();
    faults();
}
