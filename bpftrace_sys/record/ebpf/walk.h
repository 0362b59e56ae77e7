/* SPDX-License-Identifier: GPL-2.0-only
 *
 * Runs the rows of a call: which memory to copy, which fds to identify. What a command of bpf(2)
 * means is in the rows, not here.
 */
#pragma once
#include "fds.h"
#include "netdevs.h"

#define ROWS 1024

const volatile struct row rows[ROWS];

INLINE u32 word(struct state *st, u32 place)
{
	return *(u32 *)&st->at[PLACE(place)];
}

INLINE u64 pointer(struct state *st, u32 place)
{
	return *(u64 *)&st->at[PLACE(place)];
}

#define BPF_MAXINSNS 4096
#define BPF_COMPLEXITY_LIMIT_INSNS 1000000
#define BPF_F_TOKEN_FD (1u << 16)
#define LARGE_PROGRAMS (1ull << 21 | 1ull << 39) /* CAP_SYS_ADMIN, CAP_BPF */
#define INIT_USER_NS 0xeffffffd

/* Whether bpf_prog_load() takes more than BPF_MAXINSNS of this caller, as most_insns() of
 * decoders/walk/measures.py has it. */
NOINLINE u32 takes_large(struct state *st, u32 flags)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = 0;
	struct user_namespace *user = 0;
	u64 effective = ~0ull;
	u32 inum = INIT_USER_NS;

	st->header.flags |= WHOSE;
	READ(cred, task->cred);
	READ(effective, cred->cap_effective);
	READ(user, cred->user_ns);
	READ(inum, user->ns.inum);
	return effective & LARGE_PROGRAMS && (inum == INIT_USER_NS || flags & BPF_F_TOKEN_FD);
}

INLINE u64 loaded(struct state *st, u32 claimed, u32 flags_at)
{
	u32 most = BPF_MAXINSNS;

	if (claimed > most && takes_large(st, word(st, flags_at)))
		most = BPF_COMPLEXITY_LIMIT_INSNS;
	return 8ull * (claimed < most ? claimed : most);
}

INLINE u64 times(u64 size, struct state *st, u32 by)
{
	return by ? size * word(st, by) : size;
}

/* A length as the fields say that are `again` behind those of the entry. */
INLINE u64 measure(struct state *st, const volatile struct row *row, u32 again)
{
	u32 by = row->by, type;
	s32 number;

	switch (row->length) {
	case FIELD:
		return (u64)word(st, by + again) * row->scale;
	case FIELDS:
		return (u64)word(st, by + again) * word(st, row->scale);
	case KEY:
		return times(st->places.key_size, st, by ? by + again : 0);
	case VALUE:
		return times(st->places.value_size, st, by ? by + again : 0);
	case CURSOR: /* bucket numbers, kernel/bpf/hashtab.c */
		type = st->places.map_type;
		if (type < 32 && (row->scale >> type & 1))
			return 4;
		return st->places.key_size;
	case FD_SLOTS:
		number = word(st, by);
		return 4ull * (number ? (u32)number : st->places.fd_array);
	case RESULT:
		if (st->places.ret < (s64)word(st, by))
			return st->places.ret < 0 ? 0 : st->places.ret;
		return word(st, by);
	case SIGNED:
		number = word(st, by);
		return number < 0 ? 0 : number;
	case LOADED:
		return loaded(st, word(st, by), row->scale);
	}
	return row->limit;
}

/* A size that stands in the struct itself. */
INLINE u64 peek(struct state *st, const volatile struct row *row, u64 addr)
{
	u32 head[2] = {};

	if (bpf_probe_read_user(head, sizeof(head), (void *)addr))
		return 8;
	if (row->length == PERF_QUERY)
		return 8 + 4 * (head[0] > 64 ? 64 : head[0]); /* BPF_TRACE_MAX_PROGS */
	if (!head[1])
		return 64; /* PERF_ATTR_SIZE_VER0 */
	return head[1] < 8 ? 8 : head[1];
}

INLINE u32 length(struct state *st, const volatile struct row *row, u64 addr)
{
	u64 size, now;

	if (row->length == PERF_ATTR || row->length == PERF_QUERY) {
		size = peek(st, row, addr);
	} else {
		size = measure(st, row, 0);
		if (row->flags & SMALLER && st->stage == EXIT) {
			now = measure(st, row, AGAIN);
			if ((row->flags & OPEN && !size) || now < size)
				size = now;
		}
	}
	return size > row->limit ? row->limit : size;
}

INLINE u32 applies(struct state *st, const volatile struct row *row)
{
	u32 field = word(st, row->at);
	u32 found;

	if (row->test == IS || row->test == IS_NOT)
		found = (field & row->mask) == row->value;
	else if (field < 32)
		found = row->mask >> field & 1;
	else
		found = field < 64 && (row->value >> (field - 32) & 1);
	return row->test == IS || row->test == ONE_OF ? found : !found;
}

/* A struct of which later rows take fields: all of them come from this one reading. */
INLINE void fetch(struct state *st, const volatile struct row *row, u64 addr, u32 size)
{
	u32 place = PLACE(row->slot), bit = 1u << (place / SLOT), got = size;
	u8 *to = &st->at[place];

	if (st->late && st->fetched & bit)
		return;
	if (got > SLOT)
		got = SLOT;
	__builtin_memset(to, 0, SLOT);
	if (bpf_probe_read_user(to, bounded(got, SLOT), (void *)addr)) {
		u32 part = PAGE - (addr & (PAGE - 1));

		missed(st, addr);
		if (part >= got || bpf_probe_read_user(to, bounded(part, SLOT), (void *)addr)) {
			copy(st, addr, size, DATA);
			return;
		}
	} else {
		st->fetched |= bit;
	}
	if (size > SLOT)
		copy(st, addr, size, DATA);
	else if (st->fetched & bit)
		tell(st, addr, to, size, DATA);
	else
		copy(st, addr, size, DATA);
}

static long an_fd(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	s32 fd = -1;

	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(st->base + 4 * index)))
		return 1;
	if (fd >= 0)
		identify(st, fd);
	return 0;
}

static long a_string(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	u64 addr = 0;

	if (bpf_probe_read_user(&addr, sizeof(addr), (void *)(st->base + 8 * index))) {
		missed(st, st->base);
		return 1;
	}
	if (addr)
		copy(st, addr, st->span, STRING);
	return 0;
}

/* A word that may be an fd: nobody has as many as there are pointers. */
static long a_word(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	u64 fd = 0;

	if (bpf_probe_read_user(&fd, sizeof(fd), (void *)(st->base + 8 * index)))
		return 1;
	if (fd && fd < 1 << 16)
		identify(st, fd);
	return 0;
}

static long an_insn(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	u8 *insn = &st->places.scan[index * 8 & (SLOT - 8)];
	u32 from, imm;

	if (insn[0] != 0x18) /* ld_imm64 */
		return 0;
	from = insn[1] >> 4;
	imm = *(u32 *)(insn + 4);
	if (from == 1 || from == 2) { /* BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE */
		u32 known = imm < FDS && st->seen[imm / 64 & (FDS / 64 - 1)] >> (imm & 63) & 1;

		if (!known && (s32)imm >= 0)
			identify(st, imm);
	} else if ((from == 5 || from == 6) && imm < 4096 && imm >= st->places.fd_array) {
		st->places.fd_array = imm + 1; /* BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE */
	}
	return 0;
}

static long some_insns(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	u64 size = st->span;

	if (!size)
		return 1;
	if (size > SLOT)
		size = SLOT;
	if (bpf_probe_read_user(st->places.scan, bounded(size, SLOT), (void *)st->base))
		return 1;
	bpf_loop(size / 8, an_insn, ctx, 0);
	st->base += size;
	st->span -= size;
	return 0;
}

INLINE void array(struct state *st, struct state **ctx, u32 op, u64 addr, u32 size)
{
	st->base = addr;
	if (op == FD_ARRAY) {
		bpf_loop(size / 4 > 4096 ? 4096 : size / 4, an_fd, ctx, 0);
	} else if (op == STRINGS) {
		st->span = INLINED;
		bpf_loop(size / 8 > 1 << 16 ? 1 << 16 : size / 8, a_string, ctx, 0);
	} else if (op == VALUE_FDS) {
		bpf_loop(size / 8 > 512 ? 512 : size / 8, a_word, ctx, 0);
	} else {
		st->span = size & ~7u;
		bpf_loop(size / SLOT + 1, some_insns, ctx, 0);
	}
}

INLINE void value_fd(struct state *st, const volatile struct row *row, u64 addr)
{
	s32 fd = -1;

	bpf_probe_read_user(&fd, sizeof(fd), (void *)(addr + row->by));
	if (fd > 0 || (!fd && !(row->flags & OPTIONAL)))
		identify(st, fd);
}

/* Whether a call that failed has written there all the same. */
INLINE u32 wrote(struct state *st, const volatile struct row *row)
{
	s64 error = -st->places.ret;

	if (st->stage == ENTRY || error <= 0)
		return 1;
	return row->kept == ~0u || (error < 32 && row->kept >> error & 1);
}

static long one_row(u32 index, struct state **ctx)
{
	struct state *st = *ctx;
	const volatile struct row *row = &rows[(st->row + index) & (ROWS - 1)];
	u32 op = row->op, size;
	u64 addr;

	if (st->skip) {
		st->skip--;
		return 0;
	}
	if (op == IF) {
		if (applies(st, row))
			return 0;
		st->skip = row->slot;
		return index + 1 + row->slot >= st->rows_to_go; /* nothing is left */
	}
	if (!wrote(st, row))
		return 0;
	if (op == IDENTIFY) {
		s32 fd = word(st, row->at);

		if (fd > 0 || (!fd && !(row->flags & OPTIONAL)))
			identify(st, fd);
		return 0;
	}
	if (op == ASK) {
		u32 number = word(st, row->at);

		if (number)
			ask_netdev(st, number);
		return 0;
	}
	addr = pointer(st, row->at);
	if (!addr)
		return 0;
	if (op == VALUE_FD) {
		value_fd(st, row, addr);
		return 0;
	}
	size = length(st, row, addr);
	if (!size)
		return 0;
	if (op == FETCH)
		fetch(st, row, addr, size);
	else if (op == COPY || op == COPY_STR)
		copy(st, addr, size, op == COPY ? DATA : STRING);
	else
		array(st, ctx, op, addr, size);
	return 0;
}

INLINE void run(struct state *st, u32 first, u32 count)
{
	struct state *ctx = st;

	st->row = first;
	st->rows_to_go = count;
	st->skip = 0;
	bpf_loop(count, one_row, &ctx, 0);
}
