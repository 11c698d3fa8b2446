/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/pc-int.h"
#include "dev/pc/pc.h"
#include "dev/pci/pci.h"

/*
 * ICH9 LPC bridge, 8086:2918 at 1F.0. Source: Intel ICH9 data sheet (316972) §13.1 (configuration), §10 (chip
 * configuration registers).
 * PIRQ A-H are GSI 16-23 of the IOAPIC always; a route register that names an IRQ passes the line to the 8259 as well,
 * for guests that know no IOAPIC. The bridge listens to the hub for that.
 * Port 92 (fast reset and A20) is the bridge's too; A20 is always open and the bit only reads back.
 * The root complex block is a set of latches: the interrupt routes of the chipset's own slots stay at their reset values
 * whatever is written (pci_slot_gsi).
 */
struct lpc {
    struct pci_dev pci;
    struct lpc_props props;
    struct irq_sink sink;
    struct dev_region *rcrb;
    /* Under pci.dev.own_lock, which nothing else uses here: lines change on any thread. Order: domain, this, 8259. */
    uint8_t routes[8];          /* config 60-63, 68-6B */
    uint8_t pirqs;              /* levels of PIRQ A-H */
    uint8_t rcrb_routes[0x14];  /* 3140-3153 */
    uint8_t oic;                /* 31FF */
    uint8_t gcs[4];             /* 3410-3413 */
    uint8_t port92;
};

enum {
    PMBASE = 0x40, ACPI_CNTL = 0x44, ROUTE_A = 0x60, ROUTE_E = 0x68, SMI_LOCK = 0xa0, RCBA = 0xf0,
    ROUTE_OFF = 0x80, ACPI_ON = 0x80, RCRB_SIZE = 0x4000, RCRB_ROUTES = 0x3140, RCRB_OIC = 0x31ff, RCRB_GCS = 0x3410,
    GSI_PIRQ_A = 16, N_PIRQS = 8, PORT92_RESET = 1, PORT92_A20 = 2,
    SMI_LOCK_WMASK = 0xffff & ~0x0200,
};

/* Drives every IRQ of the 8259 from the PIRQs routed to it. own_lock held. */
static void update_pic_locked(struct lpc *l)
{
    struct dev *pic = l->pci.dev.env->irq->pic;
    uint16_t up = 0;
    for (unsigned n = 0; n < N_PIRQS; n++) {
        if (l->pirqs >> n & 1 && !(l->routes[n] & ROUTE_OFF)) {
            up |= 1u << (l->routes[n] & 15);
        }
    }
    for (unsigned irq = 3; pic && irq < 16; irq++) {
        pic_set_pirq(pic, irq, up >> irq & 1);
    }
}

static void lpc_sink_set(struct irq_sink *sink, unsigned gsi, bool level)
{
    struct lpc *l = container_of(sink, struct lpc, sink);
    unsigned n = gsi - GSI_PIRQ_A;
    if (gsi < GSI_PIRQ_A || n >= N_PIRQS) {
        return;
    }
    pthread_mutex_lock(&l->pci.dev.own_lock);
    l->pirqs = level ? l->pirqs | 1u << n : l->pirqs & ~(1u << n);
    if (!(l->routes[n] & ROUTE_OFF)) {
        update_pic_locked(l);
    }
    pthread_mutex_unlock(&l->pci.dev.own_lock);
}

static void take_routes(struct lpc *l)
{
    pthread_mutex_lock(&l->pci.dev.own_lock);
    memcpy(l->routes, l->pci.cfg + ROUTE_A, 4);
    memcpy(l->routes + 4, l->pci.cfg + ROUTE_E, 4);
    update_pic_locked(l);
    pthread_mutex_unlock(&l->pci.dev.own_lock);
}

static unsigned sci_gsi(uint8_t acpi_cntl)
{
    static const uint8_t gsi[8] = { 9, 10, 11, 9, 20, 21, 9, 9 };
    return gsi[acpi_cntl & 7];
}

static void lpc_cfg_written(struct pci_dev *pd, unsigned off, unsigned len)
{
    struct lpc *l = container_of(pd, struct lpc, pci);
    take_routes(l);
    if (l->props.pm) {
        acpi_pm_set_sci(l->props.pm, sci_gsi(pd->cfg[ACPI_CNTL]));
    }
    if (pd->cfg[SMI_LOCK] & 0x10) {
        pd->wmask[SMI_LOCK] &= ~0x10;           /* SMI_LOCK stays until reset */
    }
}

static void lpc_cfg_moved(struct pci_dev *pd, unsigned off, unsigned len)
{
    struct lpc *l = container_of(pd, struct lpc, pci);
    uint32_t rcba = load_le32(pd->cfg + RCBA);
    if (l->props.pm) {
        acpi_pm_place(l->props.pm, load_le16(pd->cfg + PMBASE) & 0xff80, pd->cfg[ACPI_CNTL] & ACPI_ON);
    }
    if (!(rcba & 1) || !dev_region_place(l->rcrb, rcba & ~(RCRB_SIZE - 1u), NULL)) {
        dev_region_hide(l->rcrb);
    }
}

/* The latch behind a byte of the root complex block, or NULL. */
static uint8_t *rcrb_byte(struct lpc *l, uint64_t off)
{
    if (off - RCRB_ROUTES < sizeof(l->rcrb_routes)) {
        return &l->rcrb_routes[off - RCRB_ROUTES];
    }
    if (off - RCRB_GCS < sizeof(l->gcs)) {
        return &l->gcs[off - RCRB_GCS];
    }
    return off == RCRB_OIC ? &l->oic : NULL;
}

static uint64_t rcrb_read(struct dev *dev, uint64_t off, unsigned width)
{
    uint8_t *b = rcrb_byte(container_of(dev, struct lpc, pci.dev), off);
    return b ? *b : 0;
}

static void rcrb_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    uint8_t *b = rcrb_byte(container_of(dev, struct lpc, pci.dev), off);
    if (b) {
        *b = val;
    }
}

static uint64_t port92_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct lpc, pci.dev)->port92;
}

static void port92_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct lpc *l = container_of(dev, struct lpc, pci.dev);
    bool reset = val & ~l->port92 & PORT92_RESET;       /* on the rise of the bit */
    l->port92 = val & (PORT92_RESET | PORT92_A20);
    if (reset) {
        dev_guest_request(dev, GUEST_RESET, 0);
    }
}

static const struct io_ops port92_io = { .read = port92_read, .write = port92_write, .width = 1 };
static const struct io_ops rcrb_io = { .read = rcrb_read, .write = rcrb_write, .width = 1 };

static bool lpc_realize(struct dev *dev, struct err *err)
{
    static const struct pci_ident ident = { .vendor = 0x8086, .device = 0x2918, .class_code = 0x060100, .revision = 2 };
    struct lpc *l = container_of(dev, struct lpc, pci.dev);
    struct pci_dev *pd = &l->pci;
    dev->lock = &dev->env->legacy_lock;
    pd->slot = 0x1f;
    pd->fn = 0;
    if (!pci_dev_init(pd, &ident, err)) {
        return false;
    }
    pd->cfg[PCI_HEADER_TYPE] |= 0x80;           /* the south bridge is a multifunction device */
    store_le16(pd->cfg + PCI_COMMAND, 7);       /* it always decodes */
    store_le16(pd->wmask + PCI_COMMAND, 0x0140);
    store_le32(pd->cfg + PMBASE, 1 | (l->props.pm && !l->props.pm_off ? acpi_pm_base(l->props.pm) : 0));
    store_le16(pd->wmask + PMBASE, 0xff80);
    pd->cfg[ACPI_CNTL] = l->props.pm && !l->props.pm_off ? ACPI_ON : 0;
    pd->wmask[ACPI_CNTL] = ACPI_ON | 7;
    memset(pd->cfg + ROUTE_A, ROUTE_OFF, 4);
    memset(pd->cfg + ROUTE_E, ROUTE_OFF, 4);
    memset(pd->wmask + ROUTE_A, ROUTE_OFF | 15, 4);
    memset(pd->wmask + ROUTE_E, ROUTE_OFF | 15, 4);
    store_le16(pd->wmask + SMI_LOCK, SMI_LOCK_WMASK);
    store_le32(pd->wmask + RCBA, 0xffffc001);
    pd->cfg_written = lpc_cfg_written;
    pd->cfg_moved = lpc_cfg_moved;
    l->rcrb = dev_add_region(dev, "rcrb", MEM_MMIO, &rcrb_io, RCRB_SIZE);
    l->sink.set = lpc_sink_set;
    irq_hub_add_sink(dev->env->irq, &l->sink);
    return dev_map_pio(dev, "port92", &port92_io, 0x92, 1, err);
}

static void lpc_unrealize(struct dev *dev)
{
    struct lpc *l = container_of(dev, struct lpc, pci.dev);
    pc_sink_del(dev->env->irq, &l->sink);
    pci_dev_fini(&l->pci);
}

static void lpc_reset(struct dev *dev)
{
    struct lpc *l = container_of(dev, struct lpc, pci.dev);
    static const uint16_t routes[10] = { 0x3210, 0, 0x3210, 0x3210, 0x3210, 0, 0x3210, 0, 0x3210, 0 };
    pci_reset(&l->pci);
    store_le16(l->pci.wmask + SMI_LOCK, SMI_LOCK_WMASK);
    for (unsigned i = 0; i < ARRAY_SIZE(routes); i++) {
        store_le16(l->rcrb_routes + 2 * i, routes[i]);
    }
}

static void lpc_settle(struct dev *dev)
{
    struct pci_dev *pd = container_of(dev, struct pci_dev, dev);
    pci_settle(pd);
    lpc_cfg_written(pd, 0, PCI_CFG_SIZE);
    lpc_cfg_moved(pd, 0, PCI_CFG_SIZE);
}

static const struct state_field lpc_fields[] = {
    STATE_PCI_DEV(struct lpc, pci),
    STATE(struct lpc, pirqs, .keep = true),     /* others drive them */
    STATE_BYTES(struct lpc, rcrb_routes),
    STATE(struct lpc, oic),
    STATE_BYTES(struct lpc, gcs),
    STATE(struct lpc, port92, .reset = PORT92_A20, .max = PORT92_RESET | PORT92_A20),
    STATE_END
};

const struct dev_type lpc_type = {
    .name = "lpc", .size = sizeof(struct lpc), .version = 1, .fields = lpc_fields, .realize = lpc_realize,
    .unrealize = lpc_unrealize, .reset = lpc_reset, .settle = lpc_settle,
};

struct dev *lpc_create(struct dev_env *env, const char *id, const struct lpc_props *props, struct err *err)
{
    struct lpc *l = container_of(dev_create(env, &lpc_type, id), struct lpc, pci.dev);
    l->props = *props;
    return dev_realize(&l->pci.dev, err) ? &l->pci.dev : NULL;
}
