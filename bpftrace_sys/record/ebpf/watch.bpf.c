/* SPDX-License-Identifier: GPL-2.0-only
 *
 * The eBPF engine's programs: what processes ask of BPF, seen from inside the kernel.
 *
 * A call is begun by `enter` and ended by `leave`, which fentry and fexit, tracepoints, or raw
 * tracepoints run; which of them, the loader decides. Built by tools/build_watch.py.
 */
#include "walk.h"

struct {
	UINT(type, 29); /* BPF_MAP_TYPE_TASK_STORAGE */
	UINT(map_flags, 1); /* BPF_F_NO_PREALLOC */
	TYPE(key, int);
	TYPE(value, struct state);
} states SEC(".maps");
/* Threads that are watched, by tid; only those, if anything but the whole machine is. */
struct {
	UINT(type, 1); /* BPF_MAP_TYPE_HASH */
	UINT(max_entries, 65536);
	TYPE(key, u32);
	TYPE(value, u32);
} threads SEC(".maps");
/* Processes of which was told who they are. */
struct {
	UINT(type, 9); /* BPF_MAP_TYPE_LRU_HASH */
	UINT(max_entries, 8192);
	TYPE(key, u32);
	TYPE(value, u32);
} told SEC(".maps");
/* Requests of ioctl that are copied. */
struct {
	UINT(type, 1);
	UINT(max_entries, 64);
	TYPE(key, u32);
	TYPE(value, struct rows_of);
} requests SEC(".maps");

#define ITSELF 1   /* bits of a value of `threads`: its calls are watched */
#define CHILDREN 2 /* its children are watched */
#define THREADS 4  /* other threads that it starts are watched */
#define ALONE 8    /* started by a watched one, and not watched: its calls are counted */

/* The names by which bpftool shows them. */
#define PROGRAM(name) bpfstrace_##name

enum call { OTHER, BPF, PERF_EVENT_OPEN, IOCTL, OPENAT, SETSOCKOPT, CALLS };
#define NUMBERS 512
#define COMMANDS 64
#define PREFIXES 16
#define PREFIX_WORDS 6
struct prefix {
	u64 word[PREFIX_WORDS], mask[PREFIX_WORDS];
};

const volatile u8 native_calls[NUMBERS], compat_calls[NUMBERS]; /* enum call, by number */
const volatile u32 native_arch = 0, compat_arch = 0;
const volatile struct rows_of by_command[COMMANDS], by_call[CALLS];
volatile u32 own_process; /* as the kernel numbers it; bpfstrace_learn finds out */
volatile u32 over;        /* no more calls are begun: set by user space, for detaching takes long */
volatile u64 own_root, own_mount; /* where our paths begin; likewise */
const volatile u32 only_threads = 0;
const volatile u32 child_bits = ITSELF | CHILDREN;
const volatile u64 only_commands = ~0ull;
const volatile u64 only_uid = ~0ull;
const volatile u64 only_cgroup = 0;
const volatile u32 cgroup_level = 0;
const volatile u32 any_path = 0, any_request = 0, any_option = 0;
const volatile struct prefix prefixes[PREFIXES];
const volatile u32 prefix_count = 0;
const volatile u64 socket_options[2] = {}; /* of SOL_SOCKET, a bit each */
volatile u64 alone_processes, alone_threads, alone_calls; /* see ALONE */
const volatile u32 nr_clone = ~0u, nr_clone3 = ~0u, nr_vfork = ~0u;

/* ------------------------------------------------------------------ which calls */

INLINE u32 is_compat(struct task_struct *task)
{
	if (field_exists(task->thread_info.status)) /* x86: TS_COMPAT */
		return task->thread_info.status & 2;
	return task->thread_info.flags & 1 << 22; /* arm64: TIF_32BIT */
}

INLINE u32 read_registers(struct task_struct *task, u64 args[6], u32 compat)
{
	struct pt_regs___x86 *x86 = bpf_task_pt_regs(task);
	struct pt_regs___arm64 *arm = (void *)x86;

	if (field_exists(x86->orig_ax)) {
		if (compat) {
			args[0] = (u32)x86->bx;
			args[1] = (u32)x86->cx;
			args[2] = (u32)x86->dx;
			args[3] = (u32)x86->si;
			args[4] = (u32)x86->di;
			args[5] = (u32)x86->bp;
		} else {
			args[0] = x86->di;
			args[1] = x86->si;
			args[2] = x86->dx;
			args[3] = x86->r10;
			args[4] = x86->r8;
			args[5] = x86->r9;
		}
		return x86->orig_ax;
	}
	if (field_exists(arm->syscallno)) {
		args[0] = arm->orig_x0;
		args[1] = arm->regs[1];
		args[2] = arm->regs[2];
		args[3] = arm->regs[3];
		args[4] = arm->regs[4];
		args[5] = arm->regs[5];
		return arm->syscallno;
	}
	return ~0u;
}

/* ITSELF, ALONE, or 0: nobody's business. */
INLINE u32 watched(u64 id)
{
	u32 tid = id, *bits;

	if (id >> 32 == own_process || over)
		return 0;
	if (only_threads) {
		bits = bpf_map_lookup_elem(&threads, &tid);
		if (!bits || !(*bits & ITSELF))
			return bits ? *bits & ALONE : 0;
	}
	if (only_uid != ~0ull && (u32)bpf_get_current_uid_gid() != only_uid)
		return 0;
	if (only_cgroup && bpf_get_current_ancestor_cgroup_id(cgroup_level) != only_cgroup)
		return 0;
	return ITSELF;
}

/* 1: the path begins as one that matters; -1: it could not be read yet. */
INLINE int known_path(u64 addr)
{
	u64 path[PREFIX_WORDS] = {};

	if (any_path)
		return 1;
	if (bpf_probe_read_user_str(path, sizeof(path), (void *)addr) < 0)
		return -1;
	for (u32 at = 0; at < PREFIXES; at++) {
		const volatile struct prefix *prefix = &prefixes[at];
		u64 differs = 0;

		if (at >= prefix_count)
			break;
		for (u32 word = 0; word < PREFIX_WORDS; word++)
			differs |= (path[word] & prefix->mask[word]) ^ prefix->word[word];
		if (!differs)
			return 1;
	}
	return 0;
}

/* The rows of a call; 0: it is not copied. */
INLINE u32 choose(struct rows_of *out, u32 call, u64 args[6], u32 *flags)
{
	struct rows_of *found;
	u32 key;
	int path;

	if (call == BPF) {
		key = (u32)args[0] & 0xffff; /* above it flags, as BPF_COMMON_ATTRS */
		if (key >= COMMANDS)
			key = COMMANDS - 1;
		if (!(only_commands >> key & 1))
			return 0;
		*out = by_command[key];
		if (key == 6 /* BPF_OBJ_PIN */ || key == 7 /* BPF_OBJ_GET */ ||
		    key == 28 /* BPF_LINK_CREATE */)
			*flags |= PATHS;
		return 1;
	}
	if (call == PERF_EVENT_OPEN)
		*flags |= PATHS;
	if (call == IOCTL) {
		key = args[1];
		found = bpf_map_lookup_elem(&requests, &key);
		if (found)
			*out = *found;
		else
			*out = by_call[IOCTL];
		return found || any_request;
	}
	if (call == OPENAT) {
		path = known_path(args[1]);
		if (!path)
			return 0;
		if (path < 0)
			*flags |= UNSURE;
	}
	if (call == SETSOCKOPT && !any_option) {
		key = args[2];
		if ((u32)args[1] != 1 /* SOL_SOCKET */ || key >= 128 ||
		    !(socket_options[key / 64 & 1] >> (key & 63) & 1))
			return 0;
	}
	*out = by_call[call & 7];
	return 1;
}

/* ------------------------------------------------------------------ who */

/* Who the current process is; and that it runs another program now, if there is a former tid. */
INLINE u32 send_who(struct state *st, struct task_struct *task, u64 id, u32 former)
{
	struct mm_struct *mm = 0;
	struct task_struct *parent = 0;
	unsigned long start = 0, end = 0;
	struct file *exe = 0;
	struct who *who;

	READ(mm, task->mm);
	READ(exe, mm->exe_file);
	st->pos = 0;
	if (exe)
		path_of(st, exe);
	who = bpf_ringbuf_reserve(&ring, sizeof(*who), 0);
	if (!who)
		return 0;
	who->type = WHO;
	who->former = former;
	who->uid = bpf_get_current_uid_gid();
	who->time = bpf_ktime_get_ns();
	who->pid_tgid = id;
	who->cgroup = bpf_get_current_cgroup_id();
	who->parent = 0;
	READ(parent, task->real_parent);
	READ(who->parent, parent->tgid);
	bpf_get_current_comm(who->comm, sizeof(who->comm));
	who->exe_size = bounded(st->pos, SLOT);
	bpf_probe_read_kernel(who->exe, bounded(st->pos, SLOT), st->path);
	READ(start, mm->arg_start);
	READ(end, mm->arg_end);
	end = bounded(end - start, SMALL);
	who->size = bpf_probe_read_user(who->args, end, (void *)start) ? 0 : end;
	bpf_ringbuf_submit(who, 0);
	return 1;
}

INLINE void tell_who(struct state *st, struct task_struct *task, u64 id)
{
	u32 pid = id >> 32, yes = 1;

	if (bpf_map_lookup_elem(&told, &pid))
		return;
	if (send_who(st, task, id, 0))
		bpf_map_update_elem(&told, &pid, &yes, 0);
	else
		count(&lost_events);
}

/* ------------------------------------------------------------------ a call */

/* What is to be kept of a call that begins; 0 where it is none of ours. A function of its own, so
 * that its stack is free again when the rows run. */
NOINLINE struct state *begin(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 id = bpf_get_current_pid_tgid();
	u32 compat = is_compat(task), flags = compat ? COMPAT : 0, whom = watched(id), call, nr;
	struct rows_of chosen = {};
	u64 args[6] = {};
	struct state *st;

	if (!whom)
		return 0;
	nr = read_registers(task, args, compat);
	if (nr >= NUMBERS)
		return 0;
	call = compat ? compat_calls[nr] : native_calls[nr];
	if (whom == ALONE) {
		if (call == BPF)
			count(&alone_calls);
		return 0;
	}
	if (!call || !choose(&chosen, call, args, &flags))
		return 0;
	st = bpf_task_storage_get(&states, task, 0, 1 /* BPF_LOCAL_STORAGE_GET_F_CREATE */);
	if (!st) {
		count(&calls);
		count(&lost_calls);
		return 0;
	}
	if (!st->told) {
		st->told = 1;
		tell_who(st, task, id);
	}
	st->header.type = CALL;
	st->header.flags = flags;
	st->header.call = __sync_fetch_and_add(&calls, 1) + 1;
	st->header.time = bpf_ktime_get_ns();
	st->header.end = 0;
	st->header.pid_tgid = id;
	st->header.ret = 0;
	st->header.nr = nr;
	st->header.arch = compat ? compat_arch : native_arch;
	st->header.apart = st->header.lost = st->header.size = 0;
	bpf_get_current_comm(st->header.comm, sizeof(st->header.comm));
	for (u32 at = 0; at < 6; at++)
		st->header.args[at] = st->places.args[at] = args[at];
	st->places.ret = 0;
	st->places.fd_kind = st->places.map_type = st->places.key_size = st->places.value_size = 0;
	st->places.link_type = st->places.fd_array = 0;
	for (u32 at = 0; at < FDS / 64; at++)
		st->seen[at] = 0;
	st->rows = chosen;
	st->stage = ENTRY;
	st->late = st->fetched = 0;
	st->busy = 1;
	return st;
}

INLINE int enter(void)
{
	struct state *st = begin();

	if (st)
		run(st, st->rows.entry, st->rows.entries);
	return 0;
}

NOINLINE long send(struct state *st)
{
	u64 size = bounded(st->header.size, sizeof(st->area));

	st->busy = 0;
	if (bpf_ringbuf_output(&ring, st, sizeof(st->header) + size, 0))
		count(&lost_calls);
	return 0;
}

INLINE void tell_credentials(struct state *st, struct task_struct *task)
{
	const struct cred *cred = 0;
	struct user_namespace *user = 0;

	st->fact[1] = 0;
	READ(cred, task->cred);
	READ(st->fact[0], cred->cap_effective);
	READ(user, cred->user_ns);
	READ(*(u32 *)&st->fact[1], user->ns.inum);
	tell(st, 0, st->fact, 16, CRED);
}

/* Where a task's absolute paths begin. */
INLINE void root_of(struct task_struct *task, u64 *mount, u64 *root)
{
	struct fs_struct *fs = 0;

	*mount = *root = 0;
	READ(fs, task->fs);
	READ(*mount, fs->root.mnt);
	READ(*root, fs->root.dentry);
}

INLINE void tell_root(struct state *st, struct task_struct *task)
{
	u64 mount, root;

	root_of(task, &mount, &root);
	st->fact[0] = mount == own_mount && root == own_root;
	tell(st, 0, st->fact, 8, ROOT);
}

INLINE int leave(s64 ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct state *st = bpf_task_storage_get(&states, task, 0, 0);

	if (!st || !st->busy)
		return 0;
	st->header.end = bpf_ktime_get_ns();
	if (st->header.flags & COMPAT)
		ret = (s32)ret;
	if (st->header.flags & UNSURE && !known_path(st->header.args[1])) {
		st->busy = 0;
		return 0;
	}
	if (st->header.flags & MISSED) {
		/* The kernel has read it in meanwhile; what it has not is missing for good. */
		st->header.flags &= ~MISSED;
		st->late = 1;
		for (u32 at = 0; at < FDS / 64; at++)
			st->seen[at] = 0;
		run(st, st->rows.entry, st->rows.entries);
		st->late = 0;
	}
	st->header.ret = st->places.ret = ret;
	st->stage = EXIT;
	if (st->rows.exits) {
		for (u32 at = 0; at < FDS / 64; at++)
			st->seen[at] = 0;
		run(st, st->rows.exit, st->rows.exits);
	}
	if (ret == -1 /* EPERM */ || ret == -13 /* EACCES */ || ret == -95 /* EOPNOTSUPP */ ||
	    st->header.flags & WHOSE)
		tell_credentials(st, task);
	if (ret < 0 && ret > -4096 && st->header.flags & PATHS)
		tell_root(st, task);
	send(st);
	return 0;
}

/* ------------------------------------------------------------------ processes */

INLINE void tell_process(struct process *event, u32 what, u64 id)
{
	event->type = PROCESS;
	event->event = what;
	event->time = bpf_ktime_get_ns();
	event->pid_tgid = id;
	if (bpf_ringbuf_output(&ring, event, sizeof(*event), 0))
		count(&lost_events);
}

/* Whether what happens to a thread is told: the bits of `threads`, or ITSELF. */
INLINE u32 interest(u64 id)
{
	u32 pid = id >> 32, tid = id, *bits;

	if (over)
		return 0;
	if (only_threads) {
		bits = bpf_map_lookup_elem(&threads, &tid);
		return bits ? *bits : 0;
	}
	return bpf_map_lookup_elem(&told, &pid) ? ITSELF | CHILDREN : 0;
}

SEC("raw_tp/sched_process_fork")
int PROGRAM(fork)(u64 *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), args[6] = {};
	struct task_struct *child = (void *)ctx[1];
	u32 bits = interest(id), value = bits & ITSELF ? bits : child_bits, nr;
	struct process event = {};

	READ(event.a, child->tgid);
	READ(event.b, child->pid);
	if (event.a == own_process)
		return 0;
	if (!(bits & (event.a == id >> 32 ? CHILDREN | THREADS : CHILDREN))) {
		if (only_threads && bits) {
			value = ALONE;
			bpf_map_update_elem(&threads, &event.b, &value, 0);
			if (bits & ITSELF)
				count(event.a == id >> 32 ? &alone_threads : &alone_processes);
		}
		return 0;
	}
	if (only_threads && bpf_map_update_elem(&threads, &event.b, &value, 0))
		count(&lost_events);
	if (!(bits & ITSELF))
		return 0; /* our own: it runs what we watch */
	nr = read_registers(bpf_get_current_task_btf(), args, 0);
	if (nr == nr_clone)
		event.how = args[0];
	else if (nr == nr_clone3)
		bpf_probe_read_user(&event.how, sizeof(event.how), (void *)args[0]);
	else if (nr == nr_vfork)
		event.how = 0x4000; /* CLONE_VFORK */
	READ(value, child->exit_signal);
	if (value != 17 /* SIGCHLD */)
		event.how |= 1ull << 63;
	tell_process(&event, FORK, id);
	return 0;
}

SEC("raw_tp/sched_process_exec")
int PROGRAM(exec)(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 id = bpf_get_current_pid_tgid();
	u32 pid = id >> 32, tid = id, former = ctx[1], *bits, value;
	struct process event = {};
	unsigned long task_size = 0;
	struct mm_struct *mm = 0;
	struct state *st;

	if (only_threads && former != tid) {
		/* The thread that lives on has its process's number now. */
		bits = bpf_map_lookup_elem(&threads, &former);
		if (bits) {
			value = *bits;
			bpf_map_update_elem(&threads, &tid, &value, 0);
			bpf_map_delete_elem(&threads, &former);
		}
	}
	READ(mm, task->mm);
	READ(task_size, mm->task_size);
	if (task_size >> 32 == 0 && (!only_threads || interest(id) & ITSELF))
		tell_process(&event, NARROW, id);
	st = bpf_task_storage_get(&states, task, 0, 0);
	if (st)
		st->told = 0;
	if (!(interest(id) & ITSELF))
		return 0;
	bpf_map_delete_elem(&told, &pid);
	st = bpf_task_storage_get(&states, task, 0, 1 /* BPF_LOCAL_STORAGE_GET_F_CREATE */);
	if (st && send_who(st, task, id, former))
		return 0;
	event.a = former;
	tell_process(&event, EXEC, id);
	return 0;
}

SEC("raw_tp/sched_process_exit")
int PROGRAM(gone)(u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 id = bpf_get_current_pid_tgid();
	struct state *st = bpf_task_storage_get(&states, task, 0, 0);
	u32 pid = id >> 32, tid = id, bits = interest(id);
	struct process event = {};

	if (st && st->busy) {
		st->header.flags |= UNFINISHED;
		send(st);
	}
	if (!bits)
		return 0;
	if (only_threads)
		bpf_map_delete_elem(&threads, &tid);
	if (bits == ALONE)
		return 0;
	if (pid == tid)
		bpf_map_delete_elem(&told, &pid);
	READ(event.a, task->exit_code);
	tell_process(&event, EXITED, id);
	return 0;
}

/* ------------------------------------------------------------------ hooks */

SEC("tp/enter")
int PROGRAM(enter_tp)(void *ctx)
{
	return enter();
}

struct exit_args {
	u64 common;
	s64 nr;
	s64 ret;
};

SEC("tp/exit")
int PROGRAM(exit_tp)(struct exit_args *ctx)
{
	return leave(ctx->ret);
}

SEC("fentry/call")
int PROGRAM(enter_fentry)(u64 *ctx)
{
	return enter();
}

SEC("fexit/call")
int PROGRAM(exit_fexit)(u64 *ctx)
{
	return leave(ctx[1]);
}

SEC("raw_tp/sys_enter")
int PROGRAM(enter_raw)(u64 *ctx)
{
	u64 nr = ctx[1];

	if (nr >= NUMBERS || (!native_calls[nr] && !compat_calls[nr]))
		return 0;
	return enter();
}

SEC("raw_tp/sys_exit")
int PROGRAM(exit_raw)(u64 *ctx)
{
	return leave(ctx[1]);
}

/* ------------------------------------------------------------------ at start */

struct canary {
	u64 pid_tgid;
	u32 map_type, id, key_size, value_size, max_entries, map_flags;
	u32 ringbuf, nothing;
};
struct canary canary;
volatile u64 held;

/* Only so that the object's BTF has them: Python's formats are held against it. */
const volatile struct layouts {
	struct piece piece;
	struct apart apart;
	struct process process;
	struct who who;
} layouts;

/* Run by ourselves with an fd of ours and its enum fd_kind: learns the f_op of its file, and of a
 * map what can be compared with what we know of it. */
SEC("raw_tp/learn")
int PROGRAM(learn)(u64 *ctx)
{
	u32 fd = ctx[0], kind = ctx[1];
	struct file *file = file_of(fd);
	struct bpf_map *map = 0;
	u64 f_op = 0, mount, root;

	canary.pid_tgid = bpf_get_current_pid_tgid();
	own_process = canary.pid_tgid >> 32;
	root_of(bpf_get_current_task_btf(), &mount, &root);
	own_mount = mount;
	own_root = root;
	canary.ringbuf = enum_value(enum bpf_map_type, BPF_MAP_TYPE_RINGBUF);
	if (!file || kind >= OTHER_FILE)
		return 0;
	READ(f_op, file->f_op);
	operations[kind & 7] = f_op;
	if (kind != MAP)
		return 0;
	READ(map, file->private_data);
	READ(canary.map_type, map->map_type);
	READ(canary.id, map->id);
	READ(canary.key_size, map->key_size);
	READ(canary.value_size, map->value_size);
	READ(canary.max_entries, map->max_entries);
	READ(canary.map_flags, map->map_flags);
	return 0;
}

/* Run by ourselves with an fd of ours: how many hold the program that it leads to, we included. */
SEC("raw_tp/holders")
int PROGRAM(holders)(u64 *ctx)
{
	struct file *file = file_of(ctx[0]);
	struct bpf_prog *prog = 0;
	struct bpf_prog_aux *aux = 0;
	u64 count = 0;

	if (file && kind_of(file) == PROG) {
		READ(prog, file->private_data);
		READ(aux, prog->aux);
		READ(count, aux->refcnt.counter);
	}
	held = count;
	return 0;
}

/* Finds a function in the kernel's BTF by its name: parsing it in user space takes far longer. */
struct question {
	char name[64]; /* padded with zeros */
	u32 kind;
	s64 answer;
};

SEC("syscall/find")
int PROGRAM(find)(struct question *ctx)
{
	char name[64];

	for (u32 at = 0; at < sizeof(name); at++)
		name[at] = ctx->name[at];
	name[sizeof(name) - 1] = 0;
	ctx->answer = bpf_btf_find_by_name_kind(name, sizeof(name), ctx->kind, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
