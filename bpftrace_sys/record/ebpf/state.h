/* SPDX-License-Identifier: GPL-2.0-only
 *
 * What is kept of a call from its entry to its exit, and what goes through the ring.
 * bpftrace_sys/record/ebpf/records.py unpacks it; a test holds both against the object's BTF.
 */
#pragma once
#include "kernel.h"

#define PAGE 4096
#define AREA 1536   /* bytes of pieces that are sent with the call itself */
#define INLINED 256 /* bytes of the longest of them */
#define SMALL 512   /* bytes of the smaller of the records for longer ones */
#define SLOT 256    /* bytes of a struct that is looked into */
#define FDS 512     /* fds below this are identified once a stage of a call */
#define COMPONENTS 32

enum record { CALL, PIECE, PROCESS, WHO };
enum stage { ENTRY, EXIT };
enum piece_kind { DATA, STRING, FD, ASKED, CRED, ROOT };
enum fd_kind { NO_FD, MAP, PROG, LINK, BTF, PERF_EVENT, TOKEN, OTHER_FILE, FD_KINDS };
enum event { FORK, EXEC, EXITED, NARROW };
enum flag {
	UNFINISHED = 1, /* its thread ended before it returned */
	MISSED = 2,     /* something could not be read in time: its page was not there */
	COMPAT = 4,     /* a call of the 32-bit ABI */
	UNSURE = 8,     /* an openat whose path could not be read yet */
	WHOSE = 16,     /* who calls has decided what was copied */
	PATHS = 32,     /* it may name a path, so that where paths begin counts if it fails */
};

/* A piece within a call; its data is padded to 8 bytes. */
struct piece {
	u64 addr; /* of an fd: the fd, and its enum fd_kind in the upper half */
	u32 wanted;
	u16 got;
	u8 kind;
	u8 stage; /* and LATE, THERE */
};
#define LATE 2  /* read at the exit, what was missing at the entry */
#define THERE 4 /* not read, though there is memory: its page was never used, or is swapped out */

/* A piece that is a record of its own, ahead of its call. */
struct apart {
	u32 type;
	u32 got;
	u64 call;
	struct piece piece;
	u32 last;  /* of a string: the byte where the helper puts its NUL */
	u32 first; /* of the pages of a long piece */
};

struct header {
	u32 type;
	u32 flags;
	u64 call; /* counts the calls */
	u64 time; /* CLOCK_MONOTONIC */
	u64 end;
	u64 pid_tgid;
	u64 args[6];
	s64 ret;
	u32 nr;
	u32 arch; /* AUDIT_ARCH_* */
	u32 apart; /* records that were sent ahead */
	u32 lost;  /* pieces that were not: the ring was full */
	u32 size;  /* of the pieces that follow */
	u32 _;
	u8 comm[16];
};

struct process {
	u32 type;
	u32 event;
	u64 time;
	u64 pid_tgid;
	u32 a, b; /* FORK: pid and tid of the child; EXEC: former tid; EXITED: exit code */
	u64 how;  /* FORK: the flags of clone */
	/* NARROW: it runs a 32-bit program now */
};

struct who {
	u32 type;
	u32 uid;
	u64 time;
	u64 pid_tgid;
	u64 cgroup;
	u32 parent;
	u32 size; /* of the arguments */
	u32 exe_size;
	u32 former; /* of an exec the thread that called it; else 0 */
	u8 comm[16];
	u8 exe[SLOT]; /* as a file's path */
	u8 args[SMALL];
};

/* Where rows find what they work on: offsets of struct row. */
struct places {
	u64 args[6];
	s64 ret;
	u32 fd_kind, map_type, key_size, value_size, link_type, fd_array, _, __;
	u8 _to_256[168];
	u8 attr[SLOT];
	u8 inner[SLOT];
	u8 scan[SLOT];
	u8 _to_1280[256];
	/* attr and inner as the kernel left them, AGAIN after what they were */
	u8 attr_again[SLOT];
	u8 inner_again[SLOT];
	u8 _to_2048[256];
};
#define AGAIN 1024
#define PLACE(offset) ((offset) & 2047 & ~3u)

struct rows_of {
	u16 entry, entries, exit, exits;
};

struct state {
	struct header header;
	u8 area[AREA + INLINED + 64];
	union {
		struct places places;
		u8 at[2048 + SLOT + 8];
	};
	/* of the walk */
	u64 cursor, left; /* of a long piece */
	u64 base, span;   /* of an array */
	u64 seen[FDS / 64];
	u32 stage, late, row, rows_to_go, skip, piece, fetched, busy, told, pos;
	struct rows_of rows;
	struct dentry *dentry;
	struct mount *mount;
	struct hlist_node *netdev;
	u64 fact[5];
	u64 known[5];    /* what was said last of a map, */
	void *known_map; /* and of which: loops ask of the same one again and again */
	u8 path[SLOT * 2];
};

/* A row of the table: what to copy. Made by tools/gen_steps.py. */
enum op {
	IF,        /* skip `slot` rows unless the field at `at` is as `test` says */
	COPY,      /* what the pointer leads to */
	COPY_STR,  /* the same, up to its NUL */
	FETCH,     /* COPY, and keep it at `slot` for later rows */
	IDENTIFY,  /* the fd at `at` */
	FD_ARRAY,  /* COPY of an array of fds, and what they are */
	STRINGS,   /* COPY of an array of pointers to strings, and these */
	INSNS,     /* COPY of instructions, and what the fds in them are */
	VALUE_FD,  /* an fd in a map's value, `by` bytes behind its beginning */
	VALUE_FDS, /* words of a map's value that may be fds */
	ASK,       /* the number of an interface, which has a name */
};
enum length {
	FIXED,      /* limit */
	FIELD,      /* the u32 at `by`, times scale */
	FIELDS,     /* the u32s at `by` and at `scale`, multiplied */
	KEY,        /* the map's key, times the u32 at `by` if that is not 0 */
	VALUE,      /* the map's value, the same */
	CURSOR,     /* of a batch: the key, or 4 in hash tables */
	FD_SLOTS,   /* the u32 at `by`, or as many as the instructions use, times 4 */
	PERF_ATTR,  /* as struct perf_event_attr says */
	PERF_QUERY, /* as struct perf_event_query_bpf says */
	RESULT,     /* the u32 at `by`, and no more than the call returned */
	SIGNED,     /* the s32 at `by` */
	LOADED,     /* the u32 at `by` instructions, but no more than the kernel takes of this
		     * caller; prog_flags are at `scale` */
};
enum test { IS, ONE_OF, IS_NOT, NONE_OF };
enum row_flag {
	OPTIONAL = 1, /* an fd of 0 is none */
	SMALLER = 2,  /* of two lengths, at entry and now */
	OPEN = 4,     /* a length of 0 at entry means as much as there is now */
	LOOK_AGAIN = 8, /* FETCH at exit: to where it is AGAIN */
};
struct row {
	u8 op, flags, length, test;
	u16 at, by, slot, _;
	u32 scale, limit;
	u32 mask, value; /* of IF; together the set of ONE_OF and NONE_OF */
	u32 kept;        /* errors after which there is something to copy at exit, as bits */
};
