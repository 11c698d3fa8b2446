/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"

/*
 * ACPI fixed hardware of an ICH9: PM1, PM timer, GPE0, SMI and TCO registers, and ports B2/B3. Sources: ACPI 6.5 §4.8.3
 * (PM1, PM_TMR), §4.8.4 (GPE); ICH9 §13.8 (PM block), §13.9 (TCO).
 * PM_TMR is a free-running 24-bit counter at 3.579545 MHz. We never store it: it is the VM clock, scaled. Its status bit
 * says whether bit 23 flipped since the guest last cleared it, so it too is computed, from flips_acked; a timer runs only
 * while that event is enabled.
 * There is no SMM: SMI_EN and SMI_STS are latches, and a write to port B2 does what the firmware's handler would do,
 * switch SCI_EN. TCO registers are latches as well: its watchdog does not count, and TCO_TMR_HLT says so.
 */
struct acpi_pm {
    struct dev dev;
    struct acpi_pm_props props;
    struct dev_region *block;
    struct irq_line sci;        /* level: follows status, enable and SCI_EN */
    struct timer flip;
    uint64_t flips_acked;       /* number of flips of PM_TMR bit 23 that the guest has seen */
    uint16_t sts;               /* PM1_STS without the timer's bit; write 1 to clear */
    uint16_t en, cnt;
    uint8_t gpe_sts[8], gpe_en[8];
    uint32_t smi_en, smi_sts;
    uint8_t tco[32];
    uint8_t apm[2];             /* ports B2, B3 */
};

enum {
    PM1_STS = 0x00, PM1_EN = 0x02, PM1_CNT = 0x04, PM_TMR = 0x08, GPE_STS = 0x20, GPE_EN = 0x28, SMI_EN = 0x30,
    SMI_STS = 0x34, TCO = 0x60,
    TCO_RLD = 0x00, TCO1_STS = 0x04, TCO2_STS = 0x06, TCO1_CNT = 0x08, TCO_TMR = 0x12, TCO_TMR_HLT = 1 << 3 /* of the high byte */,
};
enum {
    TMR_STS = 1 << 0, PWRBTN_STS = 1 << 8, PM1_STS_BITS = 0xcf31, PM1_EN_BITS = 0x4721,
    SCI_EN = 1 << 0, SLP_TYP_SHIFT = 10, SLP_EN = 1 << 13, PM1_CNT_BITS = 0x1c07,
    SLP_S5 = 0, SLP_S3 = 1, SLP_S4 = 2,
    PM_TMR_HZ = 3579545,
};

static uint64_t ticks(const struct acpi_pm *pm)
{
    return muldiv64(vm_clock_ns(pm->dev.env->clock), PM_TMR_HZ, NS_PER_SEC);
}

static uint16_t pm1_sts(const struct acpi_pm *pm)
{
    return pm->sts | (ticks(pm) >> 23 != pm->flips_acked ? TMR_STS : 0);
}

static bool gpe_pending(const struct acpi_pm *pm)
{
    return load_le64(pm->gpe_sts) & load_le64(pm->gpe_en);
}

/* Recomputes all that follows from the latches and the clock: SCI level, next flip. Idempotent; also runs after load. */
static void pm_update(struct acpi_pm *pm)
{
    uint16_t pending = pm1_sts(pm) & pm->en;
    irq_set(&pm->sci, pm->cnt & SCI_EN && (pending || gpe_pending(pm)));
    if (pm->en & TMR_STS && !(pending & TMR_STS)) {
        timer_arm(&pm->flip, muldiv64(((ticks(pm) >> 23) + 1) << 23, NS_PER_SEC, PM_TMR_HZ) + 1);
    } else {
        timer_disarm(&pm->flip);
    }
}

static void pm_on_flip(struct timer *t)
{
    pm_update(container_of(t, struct acpi_pm, flip));
}

static void sleep_now(struct acpi_pm *pm)
{
    switch (pm->cnt >> SLP_TYP_SHIFT & 7) {
    case SLP_S5:
    case SLP_S4:
        dev_guest_request(&pm->dev, GUEST_SHUTDOWN, 0);
        break;
    case SLP_S3:
        dev_guest_request(&pm->dev, GUEST_SUSPEND, 0);
        break;
    default:
        break;
    }
}

/* Byte `i` of a 16-bit register takes v. */
static uint16_t merge16(uint16_t reg, unsigned i, uint8_t v)
{
    return (reg & ~(0xff << 8 * i)) | v << 8 * i;
}

static uint32_t merge32(uint32_t reg, unsigned i, uint8_t v)
{
    return (reg & ~(0xffu << 8 * i)) | (uint32_t)v << 8 * i;
}

static void tco_write(struct acpi_pm *pm, unsigned off, uint8_t v)
{
    switch (off) {
    case TCO1_STS:
    case TCO1_STS + 1:
    case TCO2_STS:
    case TCO2_STS + 1:
        pm->tco[off] &= ~v;
        break;
    case TCO_RLD:
    case TCO_RLD + 1:
        break;                  /* reload of a timer that stands still */
    case TCO1_CNT + 1:
        pm->tco[off] = v | TCO_TMR_HLT;
        break;
    default:
        pm->tco[off] = v;
        break;
    }
}

static void byte_write(struct acpi_pm *pm, unsigned off, uint8_t v)
{
    if (off >= TCO) {
        tco_write(pm, off - TCO, v);
        return;
    }
    switch (off & ~7u) {
    case GPE_STS:
        pm->gpe_sts[off & 7] &= ~v;
        return;
    case GPE_EN:
        pm->gpe_en[off & 7] = v;
        return;
    default:
        break;
    }
    switch (off & ~3u) {
    case SMI_EN:
        pm->smi_en = merge32(pm->smi_en, off & 3, v);
        return;
    case SMI_STS:
        pm->smi_sts &= ~((uint32_t)v << 8 * (off & 3));
        return;
    default:
        break;
    }
    switch (off & ~1u) {
    case PM1_STS:
        pm->sts &= ~(v << 8 * (off & 1));
        if (!(off & 1) && v & TMR_STS) {
            pm->flips_acked = ticks(pm) >> 23;
        }
        break;
    case PM1_EN:
        pm->en = merge16(pm->en, off & 1, v) & PM1_EN_BITS;
        break;
    case PM1_CNT:
        pm->cnt = (merge16(pm->cnt, off & 1, v) & PM1_CNT_BITS) | (pm->props.acpi_on ? SCI_EN : 0);
        break;
    default:
        break;
    }
}

static uint8_t byte_read(const struct acpi_pm *pm, unsigned off, uint32_t tmr)
{
    if (off >= TCO) {
        off -= TCO;
        return off == TCO_RLD || off == TCO_RLD + 1 ? pm->tco[TCO_TMR + off] : pm->tco[off];
    }
    switch (off & ~7u) {
    case GPE_STS: return pm->gpe_sts[off & 7];
    case GPE_EN:  return pm->gpe_en[off & 7];
    default:      break;
    }
    switch (off & ~3u) {
    case SMI_EN:  return pm->smi_en >> 8 * (off & 3);
    case SMI_STS: return pm->smi_sts >> 8 * (off & 3);
    case PM_TMR:  return tmr >> 8 * (off & 3);
    default:      break;
    }
    switch (off & ~1u) {
    case PM1_STS: return pm1_sts(pm) >> 8 * (off & 1);
    case PM1_EN:  return pm->en >> 8 * (off & 1);
    case PM1_CNT: return pm->cnt >> 8 * (off & 1);
    default:      return 0;
    }
}

/* The block takes any width anywhere: registers are 8, 16 and 32 bits wide, and drivers join neighbours. */
static uint64_t pm_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    uint32_t tmr = ticks(pm) & 0xffffff;
    uint64_t val = 0;
    for (unsigned i = 0; i < width && off + i < ACPI_PM_SIZE; i++) {
        val |= (uint64_t)byte_read(pm, off + i, tmr) << 8 * i;
    }
    return val;
}

static void pm_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    for (unsigned i = 0; i < width && off + i < ACPI_PM_SIZE; i++) {
        byte_write(pm, off + i, val >> 8 * i);
    }
    pm_update(pm);
    if (off <= PM1_CNT + 1 && off + width > PM1_CNT + 1 && val >> 8 * (PM1_CNT + 1 - off) & SLP_EN >> 8) {
        sleep_now(pm);
    }
}

static uint64_t apm_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct acpi_pm, dev)->apm[off & 1];
}

/* SMI command: what firmware's handler would do with it. */
static void apm_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    pm->apm[off & 1] = val;
    if (off == 0 && val == ACPI_ENABLE) {
        pm->cnt |= SCI_EN;
    } else if (off == 0 && val == ACPI_DISABLE && !pm->props.acpi_on) {
        pm->cnt &= ~SCI_EN;
    }
    pm_update(pm);
}

static const struct io_ops pm_io = { .read = pm_read, .write = pm_write };
static const struct io_ops apm_io = { .read = apm_read, .write = apm_write, .width = 1 };

void acpi_pm_power_button(struct dev *dev)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    pthread_mutex_lock(dev->lock);
    pm->sts |= PWRBTN_STS;
    pm_update(pm);
    pthread_mutex_unlock(dev->lock);
}

void acpi_pm_gpe(struct dev *dev, unsigned n)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    pthread_mutex_lock(dev->lock);
    pm->gpe_sts[n / 8 & 7] |= 1 << (n & 7);
    pm_update(pm);
    pthread_mutex_unlock(dev->lock);
}

uint16_t acpi_pm_base(const struct dev *dev)
{
    return container_of(dev, struct acpi_pm, dev)->props.base;
}

void acpi_pm_place(struct dev *dev, uint16_t base, bool enabled)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    if (!enabled || !base || !dev_region_place(pm->block, base, NULL)) {
        dev_region_hide(pm->block);
    }
}

void acpi_pm_set_sci(struct dev *dev, unsigned gsi)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    if (gsi != pm->sci.gsi) {
        irq_set(&pm->sci, false);
        irq_line_init(&pm->sci, dev->env->irq, gsi);
        pm_update(pm);
    }
}

static bool pm_realize(struct dev *dev, struct err *err)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    dev->lock = &dev->env->legacy_lock;
    irq_line_init(&pm->sci, dev->env->irq, 9);
    timer_init(&pm->flip, dev->loop, dev->env->clock, pm_on_flip);
    pm->flip.lock = dev->lock;
    pm->props.base = pm->props.base ? pm->props.base : 0x600;
    if (pm->props.base % ACPI_PM_SIZE) {
        return err_set(err, ERR_INVALID, "PM base 0x%x is not a multiple of %u", pm->props.base, ACPI_PM_SIZE);
    }
    pm->block = dev_map_pio(dev, "pm", &pm_io, pm->props.base, ACPI_PM_SIZE, err);
    return pm->block && dev_map_pio(dev, "apm", &apm_io, 0xb2, 2, err);
}

static void pm_unrealize(struct dev *dev)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    if (pm->flip.loop) {
        timer_disarm(&pm->flip);
        irq_set(&pm->sci, false);
    }
}

static void pm_reset(struct dev *dev)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    pm->cnt = pm->props.acpi_on ? SCI_EN : 0;
    pm->flips_acked = ticks(pm) >> 23;
    pm->tco[TCO1_CNT + 1] = TCO_TMR_HLT;
    pm->tco[TCO_TMR] = 4;
}

static bool pm_validate(struct dev *dev, struct err *err)
{
    struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
    return !(pm->sts & ~PM1_STS_BITS || pm->en & ~PM1_EN_BITS || pm->cnt & ~PM1_CNT_BITS) ||
           err_set(err, ERR_INVALID, "reserved bits set in PM1");
}

static void pm_settle(struct dev *dev)
{
    pm_update(container_of(dev, struct acpi_pm, dev));
}

static const struct state_field pm_fields[] = {
    STATE(struct acpi_pm, flips_acked),
    STATE(struct acpi_pm, sts),
    STATE(struct acpi_pm, en),
    STATE(struct acpi_pm, cnt),
    STATE_BYTES(struct acpi_pm, gpe_sts),
    STATE_BYTES(struct acpi_pm, gpe_en),
    STATE(struct acpi_pm, smi_en),
    STATE(struct acpi_pm, smi_sts),
    STATE_BYTES(struct acpi_pm, tco),
    STATE_BYTES(struct acpi_pm, apm),
    STATE_END
};

const struct dev_type acpi_pm_type = {
    .name = "acpi-pm", .size = sizeof(struct acpi_pm), .version = 1, .fields = pm_fields, .realize = pm_realize,
    .unrealize = pm_unrealize, .reset = pm_reset, .validate = pm_validate, .settle = pm_settle,
};

struct dev *acpi_pm_create(struct dev_env *env, const char *id, const struct acpi_pm_props *props, struct err *err)
{
    struct acpi_pm *pm = container_of(dev_create(env, &acpi_pm_type, id), struct acpi_pm, dev);
    pm->props = *props;
    return dev_realize(&pm->dev, err) ? &pm->dev : NULL;
}
