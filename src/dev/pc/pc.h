/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chips of a PC, one constructor each: creates, sets properties, realizes; NULL with err on failure. A property that
 * is 0 or NULL means the usual place of the chip. VM parked or not started. docs/dev-pc.md says what each chip leaves out.
 */
#ifndef LODGE_DEV_PC_PC_H
#define LODGE_DEV_PC_PC_H

#include "dev/dev.h"

struct chr;

/* 8250/16550A UART. chr is borrowed and outlives the device; NULL: nothing connected. */
struct serial_props {
    uint16_t base;              /* 0: 0x3f8 */
    uint8_t irq;                /* 0: 4 */
    struct chr *chr;
};
extern const struct dev_type serial_type;
struct dev *serial_create(struct dev_env *env, const char *id, const struct serial_props *props, struct err *err);

/* Two 8259s. Attaches to the hub: sink of GSI 0-15, pic_ack, INTR. */
extern const struct dev_type pic_type;
struct dev *pic_create(struct dev_env *env, const char *id, struct err *err);
/* Second set of inputs, ORed with the hub's: PIRQs that the LPC bridge routes to IRQ `irq`. Any thread. */
void pic_set_pirq(struct dev *pic, unsigned irq, bool level);

/* 24-pin IOAPIC, version 0x20. Attaches to the hub: sink of GSI 0-23 (GSI 0 is pin 2), eoi. */
struct ioapic_props {
    gpa_t base;                 /* 0: 0xfec00000 */
    uint8_t apic_id;            /* what its ID register holds after reset */
};
extern const struct dev_type ioapic_type;
struct dev *ioapic_create(struct dev_env *env, const char *id, const struct ioapic_props *props, struct err *err);

/* 8254 timer and port 61. */
extern const struct dev_type pit_type;
struct dev *pit_create(struct dev_env *env, const char *id, struct err *err);

/* MC146818 clock and CMOS memory. */
enum rtc_base { RTC_UTC, RTC_LOCALTIME, RTC_AT };
struct rtc_props {
    enum rtc_base base;
    int64_t at;                 /* RTC_AT: seconds since 1970 that the clock shows when the VM starts */
    uint64_t ram_below_4g, ram_above_4g;        /* bytes */
    unsigned n_cpus;
};
extern const struct dev_type rtc_type;
struct dev *rtc_create(struct dev_env *env, const char *id, const struct rtc_props *props, struct err *err);

/* ACPI power management block of an ICH9, ports B2/B3. */
struct acpi_pm_props {
    uint16_t base;              /* 0: 0x600 */
    bool acpi_on;               /* SCI_EN always reads 1: for a FADT without SMI command */
};
enum { ACPI_PM_SIZE = 128, ACPI_ENABLE = 2, ACPI_DISABLE = 3 /* values for port B2 */ };
extern const struct dev_type acpi_pm_type;
struct dev *acpi_pm_create(struct dev_env *env, const char *id, const struct acpi_pm_props *props, struct err *err);
/* Any thread. */
void acpi_pm_power_button(struct dev *pm);
/* Sets a GPE0 status bit (0-63); the SCI follows when it is enabled. Any thread. */
void acpi_pm_gpe(struct dev *pm, unsigned n);
uint16_t acpi_pm_base(const struct dev *pm);            /* the one of its properties */
/* For the LPC bridge. place: PCI lock held, legacy lock not; sci: legacy lock held. */
void acpi_pm_place(struct dev *pm, uint16_t base, bool enabled);
void acpi_pm_set_sci(struct dev *pm, unsigned gsi);

/* Q35 host bridge, 8086:29C0 at 00.0. Creates the bus when env has none. */
struct q35_props {
    gpa_t ecam_base;            /* 0: 0xb0000000 */
    bool ecam_off;              /* PCIEXBAR off after reset: firmware will set it */
};
extern const struct dev_type q35_host_type;
struct dev *q35_host_create(struct dev_env *env, const char *id, const struct q35_props *props, struct err *err);

/* ICH9 LPC bridge, 8086:2918 at 1F.0: PIRQ routes, place of the PM block, SCI choice, root complex block. */
struct lpc_props {
    struct dev *pm;             /* acpi-pm it governs; NULL: none */
    bool pm_off;                /* PM base off after reset: firmware will set it */
};
extern const struct dev_type lpc_type;
struct dev *lpc_create(struct dev_env *env, const char *id, const struct lpc_props *props, struct err *err);

/* QEMU firmware configuration. Keys and files are added before the guest runs; data is copied. */
struct fw_cfg_props {
    uint64_t ram_size;
    uint16_t n_cpus, max_cpus;
    uint8_t uuid[16];
};
enum {
    FW_CFG_SIGNATURE = 0x00, FW_CFG_FEATURES = 0x01, FW_CFG_UUID = 0x02, FW_CFG_RAM_SIZE = 0x03, FW_CFG_NO_GRAPHIC = 0x04,
    FW_CFG_N_CPUS = 0x05, FW_CFG_KERNEL_ADDR = 0x07, FW_CFG_KERNEL_SIZE = 0x08, FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b, FW_CFG_BOOT_MENU = 0x0e, FW_CFG_MAX_CPUS = 0x0f, FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12, FW_CFG_CMDLINE_SIZE = 0x14, FW_CFG_CMDLINE_DATA = 0x15, FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18, FW_CFG_DIR = 0x19, FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_MAX_FILES = 64, FW_CFG_MAX_ITEM = 512 * MIB,
};
extern const struct dev_type fw_cfg_type;
struct dev *fw_cfg_create(struct dev_env *env, const char *id, const struct fw_cfg_props *props, struct err *err);
bool fw_cfg_add_key(struct dev *fw, unsigned key, const void *data, size_t len, struct err *err);
bool fw_cfg_add_file(struct dev *fw, const char *name, const void *data, size_t len, struct err *err);

/* i8042 with a keyboard and a mouse. */
extern const struct dev_type i8042_type;
struct dev *i8042_create(struct dev_env *env, const char *id, struct err *err);
/* A key by its set-1 make code (0x01-0x7f; 0xe0xx for the extended ones). Any thread. */
void i8042_key(struct dev *kbc, uint16_t code, bool down);
/* Movement (right and up are positive), wheel (towards the user is positive), buttons (bit 0 left, 1 right, 2 middle). Any thread. */
void i8042_mouse(struct dev *kbc, int dx, int dy, int dz, unsigned buttons);

/* A write of 1, 2 or 4 bytes becomes GUEST_EXIT with that value. */
struct debug_exit_props {
    uint16_t base;              /* 0: 0xf4 */
};
extern const struct dev_type debug_exit_type;
struct dev *debug_exit_create(struct dev_env *env, const char *id, const struct debug_exit_props *props, struct err *err);

/* POST code latch at port 80. */
extern const struct dev_type port80_type;
struct dev *port80_create(struct dev_env *env, const char *id, struct err *err);

/* Text from firmware to the log, a line at a time, at debug level. Reads give 0xe9. */
struct debugcon_props {
    uint16_t base;              /* 0: 0xe9; SeaBIOS and OVMF use 0x402 */
};
extern const struct dev_type debugcon_type;
struct dev *debugcon_create(struct dev_env *env, const char *id, const struct debugcon_props *props, struct err *err);

/* pvpanic at port 505: GUEST_PANIC. code: the byte written (1 panicked, 2 crash kernel loaded). */
extern const struct dev_type pvpanic_type;
struct dev *pvpanic_create(struct dev_env *env, const char *id, struct err *err);

/* Interrupt lines at ports 2000-2017 and echo registers at E0 and E8, as QEMU's pc-testdev has them. For tests only. */
extern const struct dev_type pc_testdev_type;
struct dev *pc_testdev_create(struct dev_env *env, const char *id, struct err *err);

/* Two 8237 DMA controllers and page registers that remember what is written and never transfer. */
extern const struct dev_type dma8237_type;
struct dev *dma8237_create(struct dev_env *env, const char *id, struct err *err);

#endif
