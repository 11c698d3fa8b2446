/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes ACPI Machine Language, as little of it as our tables need. Source: ACPI 6.5 ch. 20 (AML encoding). */
#ifndef LODGE_MACHINE_AML_H
#define LODGE_MACHINE_AML_H

#include "base/buf.h"

/* A term that holds others is written as: size_t at = aml_open(b); ...contents...; aml_close(b, at, op...). */
size_t aml_open(const struct buf *b);
void aml_close_scope(struct buf *b, size_t at, const char *name);       /* Scope(name) */
void aml_close_device(struct buf *b, size_t at, const char *name);
void aml_close_method(struct buf *b, size_t at, const char *name, unsigned n_args);
void aml_close_package(struct buf *b, size_t at, unsigned n);
void aml_close_if(struct buf *b, size_t at);
void aml_close_buffer(struct buf *b, size_t at);                        /* contents: raw bytes */

void aml_name(struct buf *b, const char *name);                         /* Name(name, <next term>) */
void aml_path(struct buf *b, const char *path);                         /* "\\_SB.PCI0" or "PCI0", segments of up to 4 */
void aml_int(struct buf *b, uint64_t v);
void aml_string(struct buf *b, const char *s);
void aml_eisaid(struct buf *b, const char *id);                         /* "PNP0A08" */
void aml_return(struct buf *b);                                         /* Return(<next term>) */

/* Resource template: aml_res_begin, resources, aml_res_end make one Buffer term. */
size_t aml_res_begin(const struct buf *b);
void aml_res_end(struct buf *b, size_t at);
void aml_res_io(struct buf *b, uint16_t base, uint8_t len);
void aml_res_irq(struct buf *b, unsigned irq);                          /* edge, active high, exclusive */
void aml_res_mem32(struct buf *b, uint32_t base, uint32_t len);
void aml_res_bus(struct buf *b, uint16_t first, uint16_t last);
void aml_res_io_window(struct buf *b, uint16_t first, uint16_t last);
void aml_res_mem32_window(struct buf *b, uint32_t first, uint32_t last, bool cacheable);
void aml_res_mem64_window(struct buf *b, uint64_t first, uint64_t last);

#endif
