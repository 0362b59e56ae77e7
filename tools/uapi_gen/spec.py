"""Hand-written knowledge: which constants belong to which table.

Headers give names and numbers, but do not say which flags may stand in which
field of union bpf_attr; the kernel function that checks a field does, and is
named here.  Every table is one row of TABLES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

ENUM: Final = "enum"
FLAGS: Final = "flags"
HEX: Final = "hex"  # an enum whose numbers are read in hexadecimal


@dataclass(frozen=True, slots=True)
class Unit:
    """One translation unit: headers that are compiled together.

    ``includes`` may hold ``{kernel}``, the folder of the kernel's own headers;
    ``macros`` selects the #defines whose values are wanted, ``structs`` the
    header files whose types are all wanted, and single types by name.
    """

    name: str
    includes: tuple[str, ...]
    macros: str
    enum_files: tuple[str, ...] = ()
    struct_files: tuple[str, ...] = ()
    structs: tuple[str, ...] = ()
    gcc: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


UNITS: Final = (
    Unit(
        "native",
        (
            "<linux/bpf.h>",
            "<linux/btf.h>",
            "<linux/perf_event.h>",
            "<linux/hw_breakpoint.h>",
            "<linux/if_link.h>",
            "<linux/if_tun.h>",
            "<linux/sockios.h>",
            "<linux/kcm.h>",
            "<linux/capability.h>",
            "<linux/time.h>",
            "<linux/fcntl.h>",
            "<linux/openat2.h>",
            "<linux/netfilter.h>",
            "<linux/netfilter_ipv4.h>",
            "<asm/socket.h>",
            "<asm/perf_regs.h>",
        ),
        macros=(
            r"BPF_(F|PSEUDO)_\w+|BPF_(OBJ_NAME_LEN|TAG_SIZE|BUILD_ID_SIZE)"
            r"|BTF_(MAGIC|VERSION|INT_(SIGNED|CHAR|BOOL))"
            r"|PERF_(FLAG|EVENT_IOC|ATTR_SIZE)_\w+|PERF_PMU_TYPE_SHIFT|PERF_HW_EVENT_MASK"
            r"|XDP_FLAGS_\w+|CAP_[A-Z0-9_]+|CLOCK_\w+|O_[A-Z]+|FASYNC|AT_FDCWD|RESOLVE_\w+"
            r"|TUN(SETSTEERING|SETFILTER)EBPF|SIOCKCM\w+|SO_(AT|DE)TACH_\w+"
        ),
        enum_files=(
            "linux/bpf.h",
            "linux/btf.h",
            "linux/perf_event.h",
            "linux/hw_breakpoint.h",
            "linux/netfilter.h",
            "linux/netfilter_ipv4.h",
            "asm/perf_regs.h",
        ),
        struct_files=("linux/bpf.h", "linux/btf.h"),
        structs=(
            "perf_event_attr",
            "perf_event_query_bpf",
            "open_how",
            "kcm_attach",
            "kcm_unattach",
        ),
    ),
    # The ioctl numbers hold the size of their argument, which is a pointer for some.
    Unit(
        "compat32",
        ("<linux/perf_event.h>",),
        macros=r"PERF_EVENT_IOC_\w+",
        gcc=("-m32",),
    ),
    # arm64 moves four of the O_ flags.  Only numbers are taken, so any gcc will do.
    Unit(
        "arm64",
        ("<asm/fcntl.h>", "<asm/perf_regs.h>"),
        macros=r"O_[A-Z]+|FASYNC",
        enum_files=("asm/perf_regs.h",),
        search=("{kernel}/arch/arm64/include/uapi",),
    ),
    # Error numbers that user space should never see, and a tracer does see.
    Unit(
        "kernel",
        ('"{kernel}/include/linux/errno.h"',),
        macros=r"E[A-Z]\w+",
        search=("{kernel}/include",),
    ),
)


@dataclass(frozen=True, slots=True)
class Table:
    """One table: ``source`` is an enum's name, or a pattern over all constants,
    or the members by name, or by name and number where no header that can be
    read has them.  ``about`` becomes the comment above it."""

    module: str
    name: str
    source: str | re.Pattern[str] | tuple[str, ...] | dict[str, int]
    about: str
    kind: str = ENUM
    unit: str = "native"
    drop: str = ""
    """Members that are no values of their own (counts, masks, shifts)."""
    strip: str = ""
    """A prefix that the table leaves out."""
    low: int | None = None
    """Smallest number that belongs here."""


def _p(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# Names that only count or bound the others.
SENTINEL: Final = _p(
    r"_*MAX_BPF_\w+|__MAX_\w+|\w+_MAX(_ID|_SHIFT)?|__BPF_FUNC_MAX_ID|NR_BTF_KINDS"
    r"|NFPROTO_NUMPROTO|NF_(INET|NETDEV)_NUMHOOKS|NF_MAX_HOOKS"
    r"|PERF_REG_(X86|ARM64)(_\w+)?_MAX|BTF_KIND_MAX"
)

_N, _P, _S = "names", "perf", "system"


def _enum(module: str, *names: str) -> tuple[Table, ...]:
    return tuple(Table(module, name, name, f"enum {name}") for name in names)


def _flags(name: str, about: str, *members: str) -> Table:
    return Table(_N, name, members, about, FLAGS)


TABLES: Final[tuple[Table, ...]] = (
    *_enum(
        _N,
        "bpf_cmd",
        "bpf_map_type",
        "bpf_prog_type",
        "bpf_attach_type",
        "bpf_link_type",
        "bpf_perf_event_type",
        "bpf_stats_type",
        "bpf_task_fd_type",
        "bpf_cgroup_iter_order",
        "bpf_addr_space_cast",
        "bpf_cond_pseudo_jmp",
        "bpf_stack_build_id_status",
        "bpf_core_relo_kind",
        "xdp_action",
        "sk_action",
        "tcx_action_base",
        "bpf_ret_code",
        "btf_func_linkage",
    ),
    Table(_N, "bpf_stream_id", _p(r"BPF_STREAM_\w+"), "anonymous enum, prog_stream_read.stream_id"),
    Table(_N, "btf_kind", _p(r"BTF_KIND_\w+"), "anonymous enum of linux/btf.h"),
    Table(_N, "btf_var_linkage", _p(r"BTF_VAR_\w+"), "anonymous enum of linux/btf.h"),
    Table(_N, "btf_int_encoding", _p(r"BTF_INT_\w+"), "BTF_INT_ENCODING() of a BTF_KIND_INT",
          FLAGS),
    Table(
        _N,
        "bpf_pseudo_ld_imm64",
        (
            "BPF_PSEUDO_MAP_FD",
            "BPF_PSEUDO_MAP_VALUE",
            "BPF_PSEUDO_BTF_ID",
            "BPF_PSEUDO_FUNC",
            "BPF_PSEUDO_MAP_IDX",
            "BPF_PSEUDO_MAP_IDX_VALUE",
        ),
        "src_reg of a 64-bit immediate load: resolve_pseudo_ldimm64()",
    ),
    Table(
        _N,
        "bpf_pseudo_call",
        ("BPF_PSEUDO_CALL", "BPF_PSEUDO_KFUNC_CALL"),
        "src_reg of a call: check_subprogs(), add_subprog_and_kfunc()",
    ),
    # Flags of union bpf_attr, one table a field.
    _flags(
        "map_flags",
        "map_create() and each map type's map_alloc_check()",
        "BPF_F_NO_PREALLOC",
        "BPF_F_NO_COMMON_LRU",
        "BPF_F_NUMA_NODE",
        "BPF_F_RDONLY",
        "BPF_F_WRONLY",
        "BPF_F_STACK_BUILD_ID",
        "BPF_F_ZERO_SEED",
        "BPF_F_RDONLY_PROG",
        "BPF_F_WRONLY_PROG",
        "BPF_F_CLONE",
        "BPF_F_MMAPABLE",
        "BPF_F_PRESERVE_ELEMS",
        "BPF_F_INNER_MAP",
        "BPF_F_LINK",
        "BPF_F_VTYPE_BTF_OBJ_FD",
        "BPF_F_TOKEN_FD",
        "BPF_F_SEGV_ON_FAULT",
        "BPF_F_NO_USER_CONV",
        "BPF_F_RB_OVERWRITE",
    ),
    _flags(
        "map_elem_flags",
        "flags of MAP_*_ELEM and batch.elem_flags: bpf_map_check_op_flags() and each map type; "
        "BPF_ANY is 0; with BPF_F_CPU the upper 32 bits are a CPU number",
        "BPF_ANY",
        "BPF_NOEXIST",
        "BPF_EXIST",
        "BPF_F_LOCK",
        "BPF_F_CPU",
        "BPF_F_ALL_CPUS",
    ),
    _flags(
        "prog_flags",
        "bpf_prog_load()",
        "BPF_F_STRICT_ALIGNMENT",
        "BPF_F_ANY_ALIGNMENT",
        "BPF_F_TEST_RND_HI32",
        "BPF_F_TEST_STATE_FREQ",
        "BPF_F_SLEEPABLE",
        "BPF_F_XDP_HAS_FRAGS",
        "BPF_F_XDP_DEV_BOUND_ONLY",
        "BPF_F_TEST_REG_INVARIANTS",
        "BPF_F_TOKEN_FD",
    ),
    _flags(
        "file_flags",
        "OBJ_PIN and OBJ_GET: bpf_obj_pin(), bpf_obj_get(), bpf_get_file_flag()",
        "BPF_F_RDONLY",
        "BPF_F_WRONLY",
        "BPF_F_PATH_FD",
    ),
    _flags(
        "open_flags",
        "*_GET_FD_BY_ID: bpf_map_get_fd_by_id(), bpf_btf_get_fd_by_id()",
        "BPF_F_RDONLY",
        "BPF_F_WRONLY",
        "BPF_F_TOKEN_FD",
    ),
    _flags(
        "attach_flags",
        "PROG_ATTACH and PROG_DETACH, and what PROG_QUERY returns: bpf_prog_attach(), "
        "__cgroup_bpf_attach(), bpf_mprog_attach()",
        "BPF_F_ALLOW_OVERRIDE",
        "BPF_F_ALLOW_MULTI",
        "BPF_F_REPLACE",
        "BPF_F_BEFORE",
        "BPF_F_AFTER",
        "BPF_F_ID",
        "BPF_F_PREORDER",
        "BPF_F_LINK",
    ),
    _flags(
        "link_create_flags",
        "link_create.flags of cgroup, tcx and netkit links: cgroup_bpf_link_attach(), "
        "bpf_mprog_attach(); XDP links have xdp_flags, all others have none",
        "BPF_F_REPLACE",
        "BPF_F_BEFORE",
        "BPF_F_AFTER",
        "BPF_F_ID",
        "BPF_F_PREORDER",
        "BPF_F_LINK",
    ),
    _flags("link_update_flags", "link_update()", "BPF_F_REPLACE"),
    _flags("query_flags", "bpf_prog_query(), __cgroup_bpf_query()", "BPF_F_QUERY_EFFECTIVE"),
    _flags(
        "test_run_flags",
        "bpf_prog_test_run_xdp(), bpf_prog_test_run_skb(), bpf_prog_test_run_raw_tp()",
        "BPF_F_TEST_RUN_ON_CPU",
        "BPF_F_TEST_XDP_LIVE_FRAMES",
        "BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
    ),
    _flags("btf_flags", "bpf_btf_load()", "BPF_F_TOKEN_FD"),
    _flags("kprobe_multi_flags", "bpf_kprobe_multi_link_attach()", "BPF_F_KPROBE_MULTI_RETURN"),
    _flags(
        "uprobe_multi_flags",
        "bpf_uprobe_multi_link_attach()",
        "BPF_F_UPROBE_MULTI_RETURN",
        "BPF_F_UPROBE_MULTI_PATH_FD",
    ),
    _flags("netfilter_flags", "bpf_nf_link_attach()", "BPF_F_NETFILTER_IP_DEFRAG"),
    _flags(
        "no_flags",
        "batch.flags, task_fd_query.flags, iter_create.flags, prog_bind_map.flags, "
        "token_create.flags, prog_assoc_struct_ops.flags: the kernel wants 0",
    ),
    Table(
        _N,
        "log_level",
        {"BPF_LOG_LEVEL1": 1, "BPF_LOG_LEVEL2": 2, "BPF_LOG_STATS": 4, "BPF_LOG_FIXED": 8},
        "log_level and btf_log_level: bpf_verifier_log_attr_valid(); the names stand in no UAPI "
        "header, but in include/linux/bpf_verifier.h (Linux 6.4)",
        FLAGS,
    ),
    Table(_N, "xdp_flags", _p(r"XDP_FLAGS_\w+"),
          "link_create.flags of an XDP link: dev_xdp_attach()", FLAGS, drop=r".*_(MODES|MASK)"),
    # Helper functions.
    Table("helpers", "bpf_func_id", "bpf_func_id", "enum bpf_func_id, from __BPF_FUNC_MAPPER",
          strip="BPF_FUNC_"),
    # perf.
    *_enum(
        _P,
        "perf_type_id",
        "perf_hw_id",
        "perf_hw_cache_id",
        "perf_hw_cache_op_id",
        "perf_hw_cache_op_result_id",
        "perf_sw_ids",
        "perf_sample_regs_abi",
        "perf_bpf_event_type",
        "perf_event_type",
    ),
    Table(_P, "perf_event_sample_format", "perf_event_sample_format",
          "enum perf_event_sample_format, perf_event_attr.sample_type", FLAGS),
    Table(_P, "perf_event_read_format", "perf_event_read_format",
          "enum perf_event_read_format, perf_event_attr.read_format", FLAGS),
    Table(_P, "perf_branch_sample_type", "perf_branch_sample_type",
          "enum perf_branch_sample_type, perf_event_attr.branch_sample_type", FLAGS),
    Table(_P, "perf_event_open_flags", _p(r"PERF_FLAG_\w+"), "flags of perf_event_open()", FLAGS),
    Table(_P, "perf_event_ioc", _p(r"PERF_EVENT_IOC_\w+"),
          "request numbers, where pointers have 8 bytes", HEX),
    Table(_P, "perf_event_ioc_compat32", _p(r"PERF_EVENT_IOC_\w+"),
          "request numbers, where pointers have 4 bytes", HEX, unit="compat32"),
    Table(_P, "perf_event_ioc_flags", "perf_event_ioc_flags",
          "enum perf_event_ioc_flags, argument of ENABLE, DISABLE and RESET", FLAGS),
    Table(_P, "hw_breakpoint_type", _p(r"HW_BREAKPOINT_(EMPTY|RW?|W|X|INVALID)"),
          "perf_event_attr.bp_type"),
    Table(_P, "hw_breakpoint_len", _p(r"HW_BREAKPOINT_LEN_\d"), "perf_event_attr.bp_len"),
    Table(_P, "perf_attr_size", _p(r"PERF_ATTR_SIZE_VER\d+"), "perf_event_attr.size"),
    Table(_P, "perf_regs_x86", "perf_event_x86_regs",
          "enum perf_event_x86_regs, bit numbers of sample_regs_user and sample_regs_intr"),
    Table(_P, "perf_regs_arm64", "perf_event_arm_regs",
          "enum perf_event_arm_regs, bit numbers of sample_regs_user and sample_regs_intr",
          unit="arm64"),
    # What other system calls take.
    Table(_S, "o_flags", _p(r"O_[A-Z]+|FASYNC"),
          "open flags of x86 (i386 and x86-64), the ones of several bits first", FLAGS,
          drop=r"O_(ACCMODE|NDELAY|RDONLY|WRONLY|RDWR)"),
    Table(_S, "o_flags_arm64", _p(r"O_[A-Z]+|FASYNC"),
          "open flags of arm64, the ones of several bits first", FLAGS, unit="arm64",
          drop=r"O_(ACCMODE|NDELAY|RDONLY|WRONLY|RDWR)"),
    Table(_S, "o_accmode", ("O_RDONLY", "O_WRONLY", "O_RDWR"), "value under O_ACCMODE"),
    Table(_S, "resolve_flags", _p(r"RESOLVE_\w+"), "open_how.resolve", FLAGS),
    Table(_S, "capability", _p(r"CAP_\w+"), "linux/capability.h", drop="CAP_LAST_CAP"),
    Table(_S, "clockid", _p(r"CLOCK_\w+"), "linux/time.h"),
    Table(_S, "kernel_errno", _p(r"E[A-Z]\w+"),
          "error numbers that stay inside the kernel, but that a tracer sees", unit="kernel",
          low=512),
    Table(_S, "nfproto", _p(r"NFPROTO_\w+"), "netfilter.pf"),
    *_enum(_S, "nf_inet_hooks", "nf_dev_hooks", "nf_ip_hook_priorities"),
    Table(_S, "tun_ioctl", _p(r"TUN\w+EBPF"), "ioctls of a tun device that take a program's fd",
          HEX),
    Table(_S, "kcm_ioctl", _p(r"SIOCKCM\w+"), "ioctls of a KCM socket", HEX),
    Table(_S, "so_filter", _p(r"SO_(AT|DE)TACH_\w+"),
          "socket options that attach and detach programs"),
)  # fmt: skip

# BPF_F_ constants that no field of a system call takes: arguments of helpers and kfuncs.
HELPER_FLAGS: Final = _p(
    r"BPF_F_("
    r"RECOMPUTE_CSUM|INVALIDATE_HASH"  # skb_store_bytes
    r"|HDR_FIELD_MASK|PSEUDO_HDR|MARK_MANGLED_0|MARK_ENFORCE|IPV6"  # l3/l4_csum_replace
    r"|TUNINFO_IPV6|TUNINFO_FLAGS"  # skb_get_tunnel_key
    r"|ZERO_CSUM_TX|DONT_FRAGMENT|SEQ_NUMBER|NO_TUNNEL_KEY"  # skb_set_tunnel_key
    r"|SKIP_FIELD_MASK|USER_STACK|FAST_STACK_CMP|REUSE_STACKID|USER_BUILD_ID"  # get_stack(id)
    r"|INDEX_MASK|CURRENT_CPU|CTXLEN_MASK"  # perf_event_output
    r"|CURRENT_NETNS"  # sk_lookup_tcp
    r"|ADJ_ROOM_(FIXED_GSO|ENCAP_L[34]_\w+|ENCAP_L2_ETH|NO_CSUM_RESET|DECAP_L3_\w+)"
    r"|SYSCTL_BASE_NAME"  # sysctl_get_name
    r"|GET_BRANCH_RECORDS_SIZE"  # read_branch_records
    r"|BPRM_SECUREEXEC"  # bprm_opts_set
    r"|INGRESS|EGRESS|BROADCAST|EXCLUDE_INGRESS|REDIRECT_FLAGS"  # redirect, redirect_map
    r"|TIMER_ABS|TIMER_CPU_PIN"  # timer_start
    r"|PAD_ZEROS"  # the kfunc bpf_copy_from_user_str
    r")"
)

# Named enums of linux/bpf.h and linux/perf_event.h that no table shows: values that only
# programs, or records of a ring buffer, hold.  A new enum in neither place stops the generator.
OTHER_ENUMS: Final = frozenset(
    {
        "bpf_adj_room_mode",
        "bpf_hdr_start_off",
        "bpf_lwt_encap_mode",
        "bpf_check_mtu_flags",
        "bpf_check_mtu_ret",
        "bpf_kfunc_flags",
        "btf_max",
        "perf_branch_sample_type_shift",
        "perf_record_ksymbol_type",
        "perf_callchain_context",
        "bp_type_idx",
    }
)

# Python constants (decoders/uapi/const.py): all members of these tables' modules, and these.
CONSTANTS: Final = _p(
    r"BPF_(F|PSEUDO)_\w+|BPF_(OBJ_NAME_LEN|TAG_SIZE|BUILD_ID_SIZE)|BPF_(ANY|NOEXIST|EXIST)"
    r"|BTF_(MAGIC|VERSION|MAX_\w+)|PERF_(PMU_TYPE_SHIFT|HW_EVENT_MASK)|AT_FDCWD|O_ACCMODE"
)
