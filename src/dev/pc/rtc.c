/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>
#include <time.h>

#include "dev/pc/pc.h"

/*
 * MC146818 real-time clock and 128 bytes of CMOS memory. Source: Motorola MC146818A data sheet; ICH9 §13.6.
 * The time is never stored while the clock runs: it is base_ns + the VM clock. While register B's SET bit holds it, the
 * ten time bytes in cmos[] are what the guest reads and writes, and clearing SET makes a new base from them.
 * Flags of register C are found lazily, by what happened between checked_ns and now; a timer runs only for an
 * interrupt that is enabled and whose flag is not up yet, so an idle guest wakes nobody.
 */
enum { CMOS_SIZE = 128 };
struct rtc {
    struct dev dev;
    struct rtc_props props;
    struct irq_line irq;        /* IRQ 8 */
    struct timer event;
    int64_t base_ns;            /* what the clock showed at VM clock 0, ns since 1970 */
    uint64_t checked_ns;        /* VM clock up to which flags in C are known */
    uint8_t cmos[CMOS_SIZE];    /* time bytes valid only while SET; A and C partly computed */
    uint8_t index;
};

enum {
    SECONDS = 0, SECONDS_ALARM = 1, MINUTES = 2, MINUTES_ALARM = 3, HOURS = 4, HOURS_ALARM = 5, WEEKDAY = 6, DAY = 7,
    MONTH = 8, YEAR = 9, REG_A = 10, REG_B = 11, REG_C = 12, REG_D = 13, CENTURY = 0x32,
};
enum {
    A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_ON = 0x20, A_RATE = 0x0f,
    B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 0x04, B_24H = 0x02,
    C_IRQF = 0x80, C_FLAGS = 0x70,      /* PF, AF, UF are where PIE, AIE, UIE are in B */
    D_VALID = 0x80, PM = 0x80, ALARM_ANY = 0xc0,
    UIP_NS = 244 * NS_PER_US, DAY_S = 86400,
};

/* Hour byte with the 12-hour form's PM bit, in BCD or binary as register B says. */
static uint8_t encode(const struct rtc *r, unsigned v)
{
    return r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10;
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
    if (r->cmos[REG_B] & B_24H) {
        return encode(r, h);
    }
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->cmos[REG_B] & B_24H) {
        return decode(r, v);
    }
    return decode(r, v & 0x7f) % 12 + (v & PM ? 12 : 0);
}

/* Time stands still while the divider is held in reset or off. */
static bool divider_on(const struct rtc *r)
{
    return (r->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_ON;
}

static bool halted(const struct rtc *r)
{
    return r->cmos[REG_B] & B_SET;
}

static uint64_t now(const struct rtc *r)
{
    return vm_clock_ns(r->dev.env->clock);
}

/* Wall-clock ns at VM clock t. Unsigned arithmetic: a base from a stream may be anything. */
static uint64_t wall(const struct rtc *r, uint64_t t)
{
    return (uint64_t)r->base_ns + t;
}

/* Writes the ten time bytes for wall-clock second `s` into cmos[]. */
static void put_time(struct rtc *r, uint64_t s)
{
    time_t t = (time_t)min_u64(s, 253402300799ull);     /* 9999-12-31 23:59:59 */
    struct tm tm;
    gmtime_r(&t, &tm);
    r->cmos[SECONDS] = encode(r, tm.tm_sec);
    r->cmos[MINUTES] = encode(r, tm.tm_min);
    r->cmos[HOURS] = encode_hour(r, tm.tm_hour);
    r->cmos[WEEKDAY] = encode(r, tm.tm_wday + 1);
    r->cmos[DAY] = encode(r, tm.tm_mday);
    r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
    r->cmos[YEAR] = encode(r, tm.tm_year % 100);
    r->cmos[CENTURY] = encode(r, (tm.tm_year + 1900) / 100);
}

/* The second that the time bytes name; nonsense is normalized the way timegm does. */
static uint64_t get_time(const struct rtc *r)
{
    struct tm tm = {
        .tm_sec = decode(r, r->cmos[SECONDS]), .tm_min = decode(r, r->cmos[MINUTES]),
        .tm_hour = decode_hour(r, r->cmos[HOURS]), .tm_mday = decode(r, r->cmos[DAY]),
        .tm_mon = (int)decode(r, r->cmos[MONTH]) - 1,
        .tm_year = (int)(decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR])) - 1900,
    };
    time_t t = timegm(&tm);
    return t < 0 ? 0 : (uint64_t)t;
}

/* Makes the running clock continue from the time bytes; the fraction of the second stays. */
static void take_time(struct rtc *r)
{
    uint64_t t = now(r);
    r->base_ns = (int64_t)(get_time(r) * NS_PER_SEC + wall(r, t) % NS_PER_SEC - t);
}

static uint64_t period_ns(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;
    if (!rate || !divider_on(r)) {
        return 0;
    }
    return muldiv64(1u << (rate <= 2 ? rate + 6 : rate - 1), NS_PER_SEC, 32768);
}

static bool alarm_field_ok(uint8_t raw, unsigned v, unsigned limit)
{
    return raw >= ALARM_ANY || v < limit;
}

/* First second >= s at which the alarm matches, or ~0. Each loop finds its first match or leaves, so it is short. */
static uint64_t next_alarm(const struct rtc *r, uint64_t s)
{
    uint8_t rh = r->cmos[HOURS_ALARM], rm = r->cmos[MINUTES_ALARM], rs = r->cmos[SECONDS_ALARM];
    unsigned ah = decode_hour(r, rh), am = decode(r, rm), as = decode(r, rs);
    uint64_t day = s - s % DAY_S;
    if (!alarm_field_ok(rh, ah, 24) || !alarm_field_ok(rm, am, 60) || !alarm_field_ok(rs, as, 60)) {
        return ~0ull;
    }
    for (unsigned h = s % DAY_S / 3600; h < 48; h++) {
        if (rh < ALARM_ANY && h % 24 != ah) {
            continue;
        }
        for (unsigned m = 0; m < 60; m++) {
            uint64_t at = day + h * 3600 + m * 60;
            if ((rm < ALARM_ANY && m != am) || at + 59 < s) {
                continue;
            }
            if (rs >= ALARM_ANY) {
                return max_u64(at, s);
            }
            if (at + as >= s) {
                return at + as;
            }
        }
    }
    return ~0ull;
}

/* Brings the flags of C up to now. */
static void check_flags(struct rtc *r)
{
    uint64_t t = now(r), from = min_u64(r->checked_ns, t), period = period_ns(r);
    uint64_t s_from = wall(r, from) / NS_PER_SEC, s_now = wall(r, t) / NS_PER_SEC;
    if (period && t / period != from / period) {
        r->cmos[REG_C] |= B_PIE;
    }
    if (!halted(r) && divider_on(r) && s_now != s_from) {
        r->cmos[REG_C] |= B_UIE;
        if (next_alarm(r, s_from + 1) <= s_now) {
            r->cmos[REG_C] |= B_AIE;
        }
    }
    r->checked_ns = t;
}

/* VM clock of the first moment at which an enabled interrupt will raise a flag that is not up; ~0 for never. */
static uint64_t next_event(const struct rtc *r)
{
    uint8_t wanted = r->cmos[REG_B] & ~r->cmos[REG_C] & C_FLAGS;
    uint64_t t = r->checked_ns, s = wall(r, t) / NS_PER_SEC, period = period_ns(r), best = ~0ull, alarm;
    if (wanted & B_PIE && period) {
        best = (t / period + 1) * period;
    }
    if (halted(r) || !divider_on(r)) {
        return best;
    }
    if (wanted & B_UIE) {
        best = min_u64(best, (s + 1) * NS_PER_SEC - (uint64_t)r->base_ns);
    }
    alarm = wanted & B_AIE ? next_alarm(r, s + 1) : ~0ull;
    return alarm == ~0ull ? best : min_u64(best, alarm * NS_PER_SEC - (uint64_t)r->base_ns);
}

/* IRQ line and timer follow from flags and enables as of checked_ns; an event since then fires the timer at once. */
static void follow(struct rtc *r)
{
    uint64_t at = next_event(r);
    irq_set(&r->irq, r->cmos[REG_B] & r->cmos[REG_C] & C_FLAGS);
    if (at == ~0ull) {
        timer_disarm(&r->event);
    } else {
        timer_arm(&r->event, at);
    }
}

static void update(struct rtc *r)
{
    check_flags(r);
    follow(r);
}

static void on_event(struct timer *t)
{
    update(container_of(t, struct rtc, event));
}

static bool is_time(unsigned ix)
{
    return ix == SECONDS || ix == MINUTES || (ix >= HOURS && ix <= YEAR && ix != HOURS_ALARM) || ix == CENTURY;
}

static uint8_t reg_read(struct rtc *r, unsigned ix)
{
    uint64_t w = wall(r, now(r));
    uint8_t val;
    if (is_time(ix) && !halted(r)) {
        put_time(r, w / NS_PER_SEC);
        return r->cmos[ix];
    }
    switch (ix) {
    case REG_A:
        return r->cmos[REG_A] | (!halted(r) && divider_on(r) && w % NS_PER_SEC >= NS_PER_SEC - UIP_NS ? A_UIP : 0);
    case REG_C:
        check_flags(r);
        val = r->cmos[REG_C];
        val |= val & r->cmos[REG_B] & C_FLAGS ? C_IRQF : 0;
        r->cmos[REG_C] = 0;
        update(r);
        return val;
    case REG_D:
        return D_VALID;
    default:
        return r->cmos[ix];
    }
}

static void reg_b_write(struct rtc *r, uint8_t val)
{
    bool was = halted(r);
    if (val & B_SET && !was) {
        put_time(r, wall(r, now(r)) / NS_PER_SEC);
    }
    r->cmos[REG_B] = val & B_SET ? val & ~B_UIE : val;
    if (was && !(val & B_SET)) {
        take_time(r);
    }
}

static void reg_write(struct rtc *r, unsigned ix, uint8_t val)
{
    check_flags(r);
    if (is_time(ix)) {
        if (halted(r)) {
            r->cmos[ix] = val;
        } else {
            put_time(r, wall(r, now(r)) / NS_PER_SEC);
            r->cmos[ix] = val;
            take_time(r);
        }
        r->checked_ns = now(r);
        update(r);
        return;
    }
    switch (ix) {
    case REG_A:
        r->cmos[REG_A] = val & ~A_UIP;
        break;
    case REG_B:
        reg_b_write(r, val);
        break;
    case REG_C:
    case REG_D:
        return;
    default:
        r->cmos[ix] = val;
        break;
    }
    if (ix <= REG_B) {
        update(r);
    }
}

static uint64_t rtc_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    return off ? reg_read(r, r->index) : 0xff;          /* the index port is write-only */
}

static void rtc_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    if (off) {
        reg_write(r, r->index, val);
    } else {
        r->index = val & 0x7f;  /* bit 7 masks NMI: no NMI source exists */
    }
}

static const struct io_ops rtc_io = { .read = rtc_read, .write = rtc_write, .width = 1 };

static void put_le(uint8_t *cmos, unsigned ix, unsigned n, uint64_t v)
{
    uint64_t limit = (1ull << 8 * n) - 1;
    v = min_u64(v, limit);
    for (unsigned i = 0; i < n; i++) {
        cmos[ix + i] = v >> 8 * i;
    }
}

/* What firmware reads when there is no etc/e820, as SeaBIOS and OVMF know it. */
static void fill_cmos(struct rtc *r)
{
    uint64_t low = r->props.ram_below_4g, ext_kib = low > MIB ? (low - MIB) / KIB : 0;
    put_le(r->cmos, 0x15, 2, min_u64(low / KIB, 640));
    put_le(r->cmos, 0x17, 2, min_u64(ext_kib, 63 * 1024));
    put_le(r->cmos, 0x30, 2, min_u64(ext_kib, 63 * 1024));
    put_le(r->cmos, 0x34, 2, low > 16 * MIB ? (low - 16 * MIB) >> 16 : 0);
    put_le(r->cmos, 0x5b, 3, r->props.ram_above_4g >> 16);
    r->cmos[0x5f] = r->props.n_cpus ? r->props.n_cpus - 1 : 0;
    r->cmos[0x14] = 0x06;       /* equipment: FPU, PS/2 mouse; no floppy */
    r->cmos[0x10] = 0;
}

static int64_t start_seconds(const struct rtc_props *props)
{
    time_t t = time(NULL);
    struct tm tm;
    switch (props->base) {
    case RTC_AT:
        return props->at;
    case RTC_LOCALTIME:
        localtime_r(&t, &tm);
        return (int64_t)t + tm.tm_gmtoff;
    default:
        return t;
    }
}

static bool rtc_realize(struct dev *dev, struct err *err)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    struct timespec ts;
    int64_t s = start_seconds(&r->props);
    if (s < 0 || s > INT64_MAX / NS_PER_SEC) {
        return err_set(err, ERR_INVALID, "a clock that starts at second %lld is outside 1970-2262", (long long)s);
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    dev->lock = &dev->env->legacy_lock;
    r->base_ns = (int64_t)((uint64_t)s * NS_PER_SEC + (r->props.base == RTC_AT ? 0 : ts.tv_nsec) - now(r));
    r->cmos[REG_A] = A_DIVIDER_ON | 6;
    r->cmos[REG_B] = B_24H;
    fill_cmos(r);
    irq_line_init(&r->irq, dev->env->irq, 8);
    timer_init(&r->event, dev->loop, dev->env->clock, on_event);
    r->event.lock = dev->lock;
    return dev_map_pio(dev, "rtc", &rtc_io, 0x70, 2, err);
}

static void rtc_unrealize(struct dev *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    if (r->event.loop) {
        timer_disarm(&r->event);
        irq_set(&r->irq, false);
    }
}

/* RESET# leaves time and memory alone; it clears interrupt enables and flags. */
static void rtc_reset(struct dev *dev)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    r->cmos[REG_B] &= ~C_FLAGS;
    r->cmos[REG_C] = 0;
    fill_cmos(r);
}

static bool rtc_validate(struct dev *dev, struct err *err)
{
    struct rtc *r = container_of(dev, struct rtc, dev);
    return !(r->cmos[REG_C] & ~C_FLAGS) || err_set(err, ERR_INVALID, "register C holds 0x%x", r->cmos[REG_C]);
}

static void rtc_settle(struct dev *dev)
{
    follow(container_of(dev, struct rtc, dev));
}

static const struct state_field rtc_fields[] = {
    STATE(struct rtc, base_ns, .keep = true),
    STATE(struct rtc, checked_ns, .keep = true),
    STATE_BYTES(struct rtc, cmos, .keep = true),
    STATE(struct rtc, index, .max = 0x7f),
    STATE_END
};

const struct dev_type rtc_type = {
    .name = "rtc", .size = sizeof(struct rtc), .version = 1, .fields = rtc_fields, .realize = rtc_realize,
    .unrealize = rtc_unrealize, .reset = rtc_reset, .validate = rtc_validate, .settle = rtc_settle,
};

struct dev *rtc_create(struct dev_env *env, const char *id, const struct rtc_props *props, struct err *err)
{
    struct rtc *r = container_of(dev_create(env, &rtc_type, id), struct rtc, dev);
    r->props = *props;
    return dev_realize(&r->dev, err) ? &r->dev : NULL;
}
