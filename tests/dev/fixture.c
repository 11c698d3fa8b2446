/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/pc/pc.h"

static bool fix_msi(void *engine, uint64_t addr, uint32_t data)
{
    struct fixture *f = engine;
    if (f->refuse_msi) {
        return false;
    }
    unsigned n = f->n_msgs++;           /* atomic: several threads may send */
    f->msgs[n % FIX_MSGS].addr = addr;
    f->msgs[n % FIX_MSGS].data = data;
    return true;
}

static void fix_extint(void *engine, bool level)
{
    ((struct fixture *)engine)->extint = level;
}

static const struct irq_engine_ops fix_eops = { .msi = fix_msi, .extint = fix_extint };

static void fix_request(struct dev_env *env, enum guest_request what, uint32_t code)
{
    struct fixture *f = env->owner;
    f->request = what;
    f->request_code = code;
    f->n_requests++;
}

void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    atomic_store(&log_threshold, LOG_ERROR);
    dev_env_init(&f->env);
    irq_hub_init(&f->hub);
    vm_clock_init(&f->clock);
    f->hub.eops = &fix_eops;
    f->hub.engine = f;
    f->env.mem = mem_create();
    f->env.irq = &f->hub;
    f->env.clock = &f->clock;
    f->env.main_loop = f->env.io_loop = loop_create(NULL);
    f->env.request = fix_request;
    f->env.owner = f;
    if (!f->env.main_loop || !mem_ram_add(f->env.mem, 0, FIX_RAM, NULL)) {
        abort();
    }
}

void fixture_fini(struct fixture *f)
{
    dev_env_fini(&f->env);
    blk_close(f->node);
    net_port_close(f->port);
    chr_close(f->chr);
    if (f->peer) {
        close(f->peer);
    }
    vm_clock_fini(&f->clock);
    loop_destroy(f->env.main_loop);
    mem_destroy(f->env.mem);
}

uint64_t fix_in(struct fixture *f, uint16_t port, unsigned width)
{
    return mem_io_read(f->env.mem, MEM_PIO, port, width);
}

void fix_out(struct fixture *f, uint16_t port, uint64_t val, unsigned width)
{
    mem_io_write(f->env.mem, MEM_PIO, port, val, width);
}

uint64_t fix_read(struct fixture *f, gpa_t gpa, unsigned width)
{
    return mem_io_read(f->env.mem, MEM_MMIO, gpa, width);
}

void fix_write(struct fixture *f, gpa_t gpa, uint64_t val, unsigned width)
{
    mem_io_write(f->env.mem, MEM_MMIO, gpa, val, width);
}

uint32_t fix_cfg_read(struct fixture *f, unsigned slot, unsigned off, unsigned width)
{
    fix_out(f, 0xcf8, 1u << 31 | slot << 11 | (off & 0xfc), 4);
    return fix_in(f, 0xcfc + (off & 3), width);
}

void fix_cfg_write(struct fixture *f, unsigned slot, unsigned off, uint32_t val, unsigned width)
{
    fix_out(f, 0xcf8, 1u << 31 | slot << 11 | (off & 0xfc), 4);
    fix_out(f, 0xcfc + (off & 3), val, width);
}

void fix_time(struct fixture *f, uint64_t ns)
{
    vm_clock_set(&f->clock, ns);
    vm_clock_start(&f->clock);
    for (int i = 0; i < 50 && loop_once(f->env.main_loop, 0) > 0; i++) {
    }
    vm_clock_stop(&f->clock);
    vm_clock_set(&f->clock, ns);
}

/* Types that want more than zeroed properties */

struct maker {
    const struct dev_type *type;
    struct dev *(*make)(struct fixture *f, struct err *err);
};

static struct dev *make_lpc(struct fixture *f, struct err *err)
{
    struct dev *pm = acpi_pm_create(&f->env, "pm", &(struct acpi_pm_props){ 0 }, err);
    return pm ? lpc_create(&f->env, "lpc", &(struct lpc_props){ .pm = pm }, err) : NULL;
}

static struct dev *make_fw_cfg(struct fixture *f, struct err *err)
{
    struct dev *fw = fw_cfg_create(&f->env, "fw", &(struct fw_cfg_props){ .ram_size = FIX_RAM, .n_cpus = 2 }, err);
    return fw && fw_cfg_add_file(fw, "etc/e820", "0123456789", 10, err) ? fw : NULL;
}

static struct dev *make_rtc(struct fixture *f, struct err *err)
{
    return rtc_create(&f->env, "rtc", &(struct rtc_props){ .base = RTC_AT, .at = 1700000000, .n_cpus = 1 }, err);
}

static int pair(struct fixture *f, int type)
{
    int sv[2];
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) < 0) {
        abort();
    }
    f->peer = sv[1];
    return sv[0];
}

static struct dev *make_virtio_blk(struct fixture *f, struct err *err)
{
    int fd = memfd_create("disk", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, FIX_DISK) < 0) {
        abort();
    }
    f->node = blk_open_fd(f->env.io_loop, fd, "raw", "disk", BLK_WRITE | BLK_DISCARD, err);
    struct virtio_blk_config cfg = { .node = f->node, .serial = "lodge-1", .n_queues = 2 };
    return f->node ? virtio_blk_create(&f->env, "dut", FIX_SLOT, &cfg, err) : NULL;
}

static struct dev *make_virtio_net(struct fixture *f, struct err *err)
{
    f->port = net_user_open(f->env.io_loop, pair(f, SOCK_SEQPACKET), err);
    struct virtio_net_config cfg = { .port = f->port, .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 } };
    return f->port ? virtio_net_create(&f->env, "dut", FIX_SLOT, &cfg, err) : NULL;
}

static struct dev *make_virtio_console(struct fixture *f, struct err *err)
{
    int fd = pair(f, SOCK_STREAM);
    f->chr = chr_fd_open(f->env.io_loop, fd, fd, true, err);
    struct virtio_console_config cfg = { .port = { { .chr = f->chr }, { .name = "org.lodge.agent" } }, .n_ports = 2, .cols = 80, .rows = 25 };
    return f->chr ? virtio_console_create(&f->env, "dut", FIX_SLOT, &cfg, err) : NULL;
}

static struct dev *make_virtio_rng(struct fixture *f, struct err *err)
{
    return virtio_rng_create(&f->env, "dut", FIX_SLOT, NULL, err);
}

static struct dev *make_virtio_balloon(struct fixture *f, struct err *err)
{
    return virtio_balloon_create(&f->env, "dut", FIX_SLOT, err);
}

static const struct maker makers[] = {
    { &lpc_type, make_lpc },
    { &fw_cfg_type, make_fw_cfg },
    { &rtc_type, make_rtc },
    { &virtio_balloon_type, make_virtio_balloon },
    { &virtio_blk_type, make_virtio_blk },
    { &virtio_console_type, make_virtio_console },
    { &virtio_net_type, make_virtio_net },
    { &virtio_rng_type, make_virtio_rng },
};

struct dev *fixture_make(struct fixture *f, const struct dev_type *type, struct err *err)
{
    struct dev *dev;
    if (type != &pci_bus_type && type != &q35_host_type && !f->env.pci && !pci_bus_create(&f->env, 0xb0000000, err)) {
        return NULL;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(makers); i++) {
        if (makers[i].type == type) {
            return makers[i].make(f, err);
        }
    }
    dev = dev_create(&f->env, type, "dut");
    return dev_realize(dev, err) ? dev : NULL;
}
