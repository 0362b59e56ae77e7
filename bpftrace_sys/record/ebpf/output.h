/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Pieces of memory, to where they are sent: in the call's own record while there is room and they
 * are short, else as records ahead of it, a page of the tracee's at a time, so that a piece ends
 * where readable memory ends.
 */
#pragma once
#include "state.h"

struct {
	UINT(type, 27); /* BPF_MAP_TYPE_RINGBUF */
	UINT(max_entries, 1 << 20); /* the loader sets it */
} ring SEC(".maps");

/* Read by user space through a mapping. */
volatile u64 calls;      /* numbers that were given to calls */
volatile u64 lost_calls; /* calls of which no record could be sent */
volatile u64 lost_pieces;
volatile u64 lost_events;

INLINE void count(volatile u64 *counter)
{
	__sync_fetch_and_add(counter, 1);
}

static long a_vma(void *task, void *vma, void *ctx)
{
	return 0;
}

/* A piece could not be read; THERE where the address is one of the process's all the same. */
NOINLINE u32 missed(struct state *st, u64 addr)
{
	u32 nothing = 0;

	st->header.flags |= MISSED;
	return bpf_find_vma(bpf_get_current_task_btf(), addr, a_vma, &nothing, 0) == -2 ? 0 : THERE;
}

INLINE u32 stage_of(struct state *st)
{
	return st->stage | (st->late ? LATE : 0);
}

/* Makes room for a piece of at most INLINED bytes in the call's record; 0 where there is none. */
INLINE struct piece *room(struct state *st, u64 addr, u32 wanted, u32 kind)
{
	u32 at = st->header.size;
	struct piece *piece;

	if (at > AREA - INLINED - sizeof(*piece))
		return 0;
	piece = (void *)&st->area[at & ~7u];
	piece->addr = addr;
	piece->wanted = wanted;
	piece->got = 0;
	piece->kind = kind;
	piece->stage = stage_of(st);
	return piece;
}

INLINE void keep(struct state *st, struct piece *piece, u32 got)
{
	piece->got = got;
	st->header.size += (sizeof(*piece) + got + 7) & ~7u;
}

INLINE void describe(struct apart *out, struct state *st, u64 addr, u32 wanted, u32 kind,
		     u32 first)
{
	out->type = PIECE;
	out->got = 0;
	out->call = st->header.call;
	out->piece.addr = addr;
	out->piece.wanted = wanted;
	out->piece.got = 0;
	out->piece.kind = kind;
	out->piece.stage = stage_of(st);
	out->last = 0;
	out->first = first;
}

/* What is not the tracee's memory: an fd's object, a number. `data` is ours, `size` short. */
NOINLINE long tell(struct state *st, u64 addr, const void *data, u32 size, u32 kind)
{
	struct piece *piece = room(st, addr, size, kind);
	struct apart *out;

	if (piece) {
		bpf_probe_read_kernel(piece + 1, bounded(size, INLINED), data);
		keep(st, piece, bounded(size, INLINED));
		return 0;
	}
	out = bpf_ringbuf_reserve(&ring, sizeof(*out) + INLINED, 0);
	if (!out) {
		st->header.lost++;
		return 0;
	}
	st->header.apart++;
	describe(out, st, addr, size, kind, 1);
	bpf_probe_read_kernel(out + 1, bounded(size, INLINED), data);
	out->got = size;
	bpf_ringbuf_submit(out, 0);
	return 0;
}

/* Reads into a record of its own; for strings `got` counts the NUL. 1: there is no more to read. */
INLINE u32 fill(struct state *st, struct apart *out, u64 addr, u32 size, u32 most, u32 kind)
{
	void *to = out + 1;
	u8 last = 0;
	long got;

	if (kind == DATA) {
		if (bpf_probe_read_user(to, bounded(size, most), (void *)addr)) {
			out->piece.stage |= missed(st, addr);
			return 1;
		}
		out->got = size;
		return 0;
	}
	/* Without a NUL the helper puts one over the last byte. */
	got = bpf_probe_read_user_str(to, bounded(size, most), (void *)addr);
	if (got < 0) {
		out->piece.stage |= missed(st, addr);
		return 1;
	}
	out->got = got;
	if (got != size)
		return 1;
	bpf_probe_read_user(&last, 1, (void *)(addr + size - 1));
	out->last = last;
	return !last;
}

/* One page of a long piece. */
static long one_page(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	u32 size = PAGE - (st->cursor & (PAGE - 1));
	struct apart *out;
	u32 ended = 0;

	if (!st->left)
		return 1;
	if (size > st->left)
		size = st->left;
	if (size <= SMALL)
		out = bpf_ringbuf_reserve(&ring, sizeof(*out) + SMALL, 0);
	else
		out = 0;
	if (out) {
		describe(out, st, st->cursor, size, st->piece, !index);
		ended = fill(st, out, st->cursor, size, SMALL, st->piece);
		bpf_ringbuf_submit(out, 0);
	} else if (size > SMALL && (out = bpf_ringbuf_reserve(&ring, sizeof(*out) + PAGE, 0))) {
		describe(out, st, st->cursor, size, st->piece, !index);
		ended = fill(st, out, st->cursor, size, PAGE, st->piece);
		bpf_ringbuf_submit(out, 0);
	} else {
		st->header.lost++;
	}
	if (out)
		st->header.apart++;
	st->cursor += size;
	st->left -= size;
	return ended;
}

/* A piece of the tracee's memory; `wanted` is its length, of a string the most. */
NOINLINE long copy(struct state *st, u64 addr, u32 wanted, u32 kind)
{
	struct state *ctx = st;
	u32 size = wanted;
	struct piece *piece;

	/* A string in a place of its own first: most are short. */
	if (kind == STRING && size > INLINED)
		size = INLINED;
	piece = size <= INLINED ? room(st, addr, wanted, kind) : 0;
	if (piece && kind == DATA) {
		if (!bpf_probe_read_user(piece + 1, bounded(size, INLINED), (void *)addr)) {
			keep(st, piece, size);
			return 0;
		}
		if (((addr ^ (addr + size - 1)) & ~(u64)(PAGE - 1)) == 0) {
			piece->stage |= missed(st, addr);
			keep(st, piece, 0);
			return 0;
		}
	} else if (piece) {
		long got = bpf_probe_read_user_str(piece + 1, bounded(size, INLINED), (void *)addr);

		if (got > 0 && got < size) {
			keep(st, piece, got);
			return 0;
		}
	}
	st->cursor = addr;
	st->left = wanted;
	st->piece = kind;
	bpf_loop((wanted + PAGE - 1) / PAGE + 1, one_page, &ctx, 0);
	return 0;
}
