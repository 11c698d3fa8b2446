/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that means harm: every port read and written with random values, PCI configuration space and every BAR likewise, the
 * ACPI, IOAPIC and APIC pages, addresses with nothing behind. Nothing is checked but that the machine still runs at the end:
 * COM1 talks, and RAM outside what a device was told to use is as it was. Reset and power-off ports are left out.
 */
#include "rt/apic.h"

static uint64_t seed;
static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}

enum { PM1_CNT = 0x604, CANARY_WORDS = 4096 };
static uint64_t canary[CANARY_WORDS];

static uint64_t canary_word(unsigned i) { return i * 0x9e3779b97f4a7c15 ^ 0x1234567; }

/* What would end the guest on purpose (debug exit, reset, sleep), and the line our results leave by. */
static bool spared(uint16_t p)
{
    return (p >= 0xf4 && p < 0xf8) || (p >= 0x3f8 && p < 0x400) || (p >= PM1_CNT - 4 && p < PM1_CNT + 4) || p == 0x64 || p == 0x92 || p == 0xcf9 ||
           (p >= 0xcf8 && p < 0xd00) || p == 0xb2 || (p >= 0x500 && p < 0x520) /* fw_cfg and pvpanic are poked apart */;
}

static void in_out(uint16_t p)
{
    switch (rnd() % 6) {
    case 0: (void)inb(p); break;
    case 1: (void)inw(p); break;
    case 2: (void)inl(p); break;
    case 3: outb(p, (uint8_t)rnd()); break;
    case 4: outw(p, (uint16_t)rnd()); break;
    default: outl(p, rnd()); break;
    }
}

static bool wide_reach(uint16_t p)      /* a wide access must not reach a spared port either */
{
    for (unsigned i = 0; i < 4; i++) {
        if (spared((uint16_t)(p + i))) {
            return true;
        }
    }
    return false;
}

static void ports(void)
{
    for (uint32_t p = 0; p < 0x10000; p++) {
        if (!spared((uint16_t)p)) {
            (void)inb((uint16_t)p);
        }
        if (!wide_reach((uint16_t)p)) {
            (void)inw((uint16_t)p);
            (void)inl((uint16_t)p);
        }
    }
    check(true, "every port read, all widths");
    for (uint32_t p = 0; p < 0x10000; p++) {
        if (!wide_reach((uint16_t)p)) {
            outb((uint16_t)p, (uint8_t)rnd());
            outw((uint16_t)p, (uint16_t)rnd());
            outl((uint16_t)p, rnd());
        }
    }
    check(true, "every port written, all widths");
    for (unsigned i = 0; i < 100000; i++) {
        uint16_t p = (uint16_t)(rnd() & (i & 1 ? 0xffff : 0x3ff));
        if (!wide_reach(p)) {
            in_out(p);
        }
    }
    check(true, "random ports");
    static uint8_t buffer[512];
    for (unsigned i = 0; i < 400; i++) {
        uint16_t p = (uint16_t)(rnd() & 0x3ff);
        if (!wide_reach(p)) {
            void *d = buffer;
            ulong n = 64;
            __asm__ volatile("rep insl" : "+D"(d), "+c"(n) : "d"(p) : "memory");
            d = buffer;
            n = 64;
            __asm__ volatile("rep outsw" : "+S"(d), "+c"(n) : "d"(p) : "memory");
        }
    }
    check(true, "string input and output");
}

static uint32_t pci_read(uint32_t at)
{
    outl(0xcf8, 0x80000000 | at);
    return inl(0xcfc);
}
static void pci_write(uint32_t at, uint32_t v)
{
    outl(0xcf8, 0x80000000 | at);
    outl(0xcfc, v);
}

/* Addresses that memory decoding may put over nothing but PCI: BARs are set here. */
static void poke(ulong base, ulong size, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ulong a = base + (rnd() % size);
        switch (rnd() % 8) {
        case 0: (void)*(volatile uint8_t *)a; break;
        case 1: (void)*(volatile uint16_t *)a; break;
        case 2: (void)*(volatile uint32_t *)a; break;
        case 3: (void)*(volatile uint64_t *)a; break;
        case 4: *(volatile uint8_t *)a = (uint8_t)rnd(); break;
        case 5: *(volatile uint16_t *)a = (uint16_t)rnd(); break;
        case 6: *(volatile uint32_t *)a = rnd(); break;
        default: *(volatile uint64_t *)a = (uint64_t)rnd() << 32 | rnd(); break;
        }
    }
}

static void pci(void)
{
    unsigned n = 0;
    for (unsigned dev = 0; dev < 32; dev++) {
        uint32_t at = dev << 11;
        if (pci_read(at) == 0xffffffff) {
            continue;
        }
        n++;
        ulong where = 0xd0000000 + ((ulong)dev << 22);
        pci_write(at + 4, 0);
        for (unsigned bar = 0; bar < 6; bar++) {
            uint32_t old = pci_read(at + 0x10 + 4 * bar);
            pci_write(at + 0x10 + 4 * bar, 0xffffffff);
            uint32_t mask = pci_read(at + 0x10 + 4 * bar);
            if (old & 1 || !mask) {
                pci_write(at + 0x10 + 4 * bar, old & 1 ? 0xc001 + (dev << 8) : 0);
                continue;
            }
            pci_write(at + 0x10 + 4 * bar, (uint32_t)where + (bar << 16));
            if ((mask & 6) == 4) {
                pci_write(at + 0x14 + 4 * bar, 0);
                bar++;
            }
        }
        pci_write(at + 4, 0x407);               /* decode and bus mastering on, INTx off */
        poke(where, 0x60000, 20000);
        for (unsigned i = 0; i < 2000; i++) {
            uint32_t r = rnd() & 0xfc;
            if (r >= 0x10 && r < 0x28) {
                continue;                       /* BARs stay off RAM */
            }
            if (dev == 31 && r >= 0x40) {
                continue;                       /* the LPC bridge's own registers move our ports */
            }
            if (dev == 0 && r >= 0x40) {
                continue;
            }
            pci_write(at + r, r == 4 ? 0x407 | (rnd() & 0xffff0000) : rnd());
        }
        pci_write(at + 4, 0x407);
        poke(where, 0x60000, 20000);
        pci_write(at + 4, 0);
    }
    check(n >= 1, "configuration space and BARs of every device");
    for (unsigned i = 0; i < 50000; i++) {
        outl(0xcf8, rnd());
        (void)(rnd() & 1 ? inl(0xcfc) : inb((uint16_t)(0xcfc + rnd() % 4)));
    }
    check(true, "random configuration addresses read");
}

/* virtio by the book up to DRIVER_OK, with rings that are nonsense. */
static void virtio(void)
{
    unsigned n = 0;
    for (unsigned dev = 0; dev < 32; dev++) {
        uint32_t at = dev << 11;
        if ((pci_read(at) & 0xffff) != 0x1af4) {
            continue;
        }
        uint32_t bar_of[6] = { 0 };
        ulong where = 0xd0000000 + ((ulong)dev << 22);
        for (unsigned bar = 0; bar < 6; bar++) {
            bar_of[bar] = (uint32_t)where + (bar << 16);
        }
        pci_write(at + 4, 0x407);
        ulong common = 0, notify = 0;
        unsigned guard = 0;
        for (uint32_t cap = pci_read(at + 0x34) & 0xfc; cap && guard++ < 48; cap = pci_read(at + cap) >> 8 & 0xfc) {
            uint32_t head = pci_read(at + cap);
            if ((head & 0xff) != 9) {
                continue;
            }
            uint32_t bar = pci_read(at + cap + 4) & 0xff, off = pci_read(at + cap + 8);
            if (bar < 6 && (head >> 24) == 1) {
                common = bar_of[bar] + off;
            } else if (bar < 6 && (head >> 24) == 2) {
                notify = bar_of[bar] + off;
            }
        }
        if (!common || !notify) {
            continue;
        }
        n++;
        for (unsigned round = 0; round < 60; round++) {
            volatile uint8_t *c = (volatile uint8_t *)common;
            c[0x14] = 0;
            c[0x14] = 1;
            c[0x14] = 3;
            *(volatile uint32_t *)(c + 0) = 0;
            *(volatile uint32_t *)(c + 8) = 0;
            *(volatile uint32_t *)(c + 12) = rnd() & (round % 7 ? *(volatile uint32_t *)(c + 4) : ~0u);
            *(volatile uint32_t *)(c + 8) = 1;
            *(volatile uint32_t *)(c + 12) = 1;
            c[0x14] = 11;
            uint8_t *ring = (uint8_t *)0x2000000 + (rnd() & 0xff000);
            for (unsigned i = 0; i < 4096; i += 4) {
                *(uint32_t *)(ring + i) = round & 1 ? rnd() : rnd() & 0x2ffffff;
            }
            for (unsigned q = 0; q < 4; q++) {
                *(volatile uint16_t *)(c + 0x16) = (uint16_t)q;
                *(volatile uint16_t *)(c + 0x18) = round % 3 ? 16 : (uint16_t)rnd();
                bool wild = round % 4 == 3;
                *(volatile uint64_t *)(c + 0x20) = wild ? (uint64_t)rnd() << 16 : (ulong)ring;
                *(volatile uint64_t *)(c + 0x28) = wild ? (uint64_t)rnd() << 28 : (ulong)ring + 1024;
                *(volatile uint64_t *)(c + 0x30) = wild ? rnd() : (ulong)ring + 2048;
                *(uint16_t *)(ring + 1024 + 2) = (uint16_t)(rnd() % 20);
                *(volatile uint16_t *)(c + 0x1c) = 1;
            }
            c[0x14] = 15;
            for (unsigned i = 0; i < 8; i++) {
                *(volatile uint16_t *)(notify + (rnd() % 64) * 4) = (uint16_t)(rnd() % 4);
            }
            delay_us(200);
            (void)c[0x14];
            c[0x14] = 0;
        }
        pci_write(at + 4, 0);
    }
    if (n) {
        check(true, "virtio devices with broken rings");
    } else {
        skip("virtio devices with broken rings", "no virtio device");
    }
}

static void chips(void)
{
    static const ulong pages[] = { IOAPIC_BASE, 0xfed00000, 0xfed10000, 0xfed40000, 0xfee10000, 0xfec10000, 0xb0000000, 0xbffff000, 0xa0000, 0xb8000, 0xfffc0000 };
    for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
        if (pages[i] == 0xb0000000) {
            continue;                           /* ECAM: pci() */
        }
        poke(pages[i], 4096, 5000);
    }
    check(true, "chips and holes in memory");
    for (unsigned i = 0; i < 24; i++) {
        ioapic_set(0x10 + 2 * i, LVT_MASKED);
    }
    for (unsigned i = 0; i < 20000; i++) {
        unsigned r = (rnd() & 0x3f) << 4;
        if (r == LAPIC_ICR) {
            continue;                           /* INIT to itself would end the test */
        }
        if (i & 1) {
            (void)lapic(r);
        } else {
            lapic_set(r, rnd());
        }
    }
    lapic_enable();
    check(true, "the local APIC's page");
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t msr = i % 3 == 0 ? rnd() & 0x1fff : i % 3 == 1 ? 0xc0000000 + (rnd() & 0x1ff) : 0x4b564d00 + (rnd() & 15);
        uint64_t v;
        (void)try_rdmsr(msr, &v);
    }
    check(true, "random MSRs read");
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t msr = i & 1 ? 0x200 + (rnd() & 0xff) : 0x4b564d00 + (rnd() & 15);
        uint64_t v = (uint64_t)rnd() << 32 | rnd();
        if (!(i & 1)) {
            v &= 0xfff001;                      /* a GPA of ours (12 MiB and up to 16) or nowhere */
            v |= 0xc00000;
        }
        (void)try_wrmsr(msr, v);
    }
    for (uint32_t m = 0x4b564d00; m < 0x4b564d10; m++) {
        (void)try_wrmsr(m, 0);
    }
    check(true, "random MTRRs and paravirtual MSRs written");
}

static void fw_cfg(void)
{
    for (unsigned i = 0; i < 3000; i++) {
        outw(0x510, (uint16_t)rnd());
        for (unsigned k = rnd() % 20; k; k--) {
            (void)inb(0x511);
        }
        outb(0x511, (uint8_t)rnd());
    }
    volatile uint32_t *dma = (volatile uint32_t *)0x3000000;
    for (unsigned i = 0; i < 2000; i++) {
        dma[0] = rnd();                         /* control, length, address: big-endian */
        dma[1] = i & 1 ? rnd() : 0x10000000;
        dma[2] = i % 3 == 0 ? rnd() : 0;
        dma[3] = 0x00001003 | (rnd() & 0xf0) << 16;
        outl(0x514, i % 5 == 0 ? rnd() : 0);
        outl(0x518, i % 7 == 0 ? __builtin_bswap32(0x3000000 + (rnd() & 0xfff)) : __builtin_bswap32(0x3000000));
    }
    check(true, "fw_cfg with random selectors and DMA");
}

void guest_main(void)
{
    cli();
    seed = option("seed", 88172645463325252ul);
    for (unsigned i = 0; i < CANARY_WORDS; i++) {
        canary[i] = canary_word(i);
    }
    ports();
    pci();
    virtio();
    chips();
    fw_cfg();
    bool same = true;
    for (unsigned i = 0; i < CANARY_WORDS; i++) {
        same &= canary[i] == canary_word(i);
    }
    check(same, "memory that no device was told about is as it was");
}
