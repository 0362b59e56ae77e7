"""The table of explanations: commands, errno, and the function that looks for the reason."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.attach import (
    attach_invalid,
    being_written,
    no_device,
    no_operation,
    no_raw_tracepoint,
    no_symbol,
)
from bpftrace_sys.story.explain.attr import leftovers, too_big, unknown_command
from bpftrace_sys.story.explain.elements import (
    element_invalid,
    element_there,
    element_too_big,
    map_access,
)
from bpftrace_sys.story.explain.failure import ANY, ANY_ERRNO, ENOTSUPP, Explainer
from bpftrace_sys.story.explain.fds import no_fds, no_more_ids, wrong_fd
from bpftrace_sys.story.explain.held import (
    array_of_others,
    bad_template,
    batch_flags,
    batch_stopped,
    does_not_fit,
    long_queue,
    no_holder,
    no_socket,
)
from bpftrace_sys.story.explain.hooks import (
    netfilter,
    netfilter_busy,
    past_the_record,
    raw_tracepoint_args,
    raw_tracepoint_name,
    xdp_modes,
    xdp_no_driver,
    xdp_taken,
)
from bpftrace_sys.story.explain.kprobes import kprobe, locked_down
from bpftrace_sys.story.explain.links import detach, update
from bpftrace_sys.story.explain.logs import btf_invalid, load_enospc, verifier
from bpftrace_sys.story.explain.map_btf import no_btf
from bpftrace_sys.story.explain.map_sizes import map_too_big, no_memory
from bpftrace_sys.story.explain.maps import map_create_invalid, no_lru
from bpftrace_sys.story.explain.occupied import (
    cgroup_missing,
    cgroup_taken,
    full,
    mprog,
    namespace_taken,
    netkit,
)
from bpftrace_sys.story.explain.perf import (
    perf_access,
    perf_invalid,
    perf_missing,
    perf_nobody,
    perf_too_big,
    set_bpf,
)
from bpftrace_sys.story.explain.pins import get_path, pin_path
from bpftrace_sys.story.explain.pointers import unreadable
from bpftrace_sys.story.explain.privileges import (
    ADMIN_COMMANDS,
    admin_eperm,
    btf_load_eperm,
    filtered,
    map_create_eperm,
    net_admin_eperm,
    prog_load_eperm,
)
from bpftrace_sys.story.explain.probe_files import probe_file
from bpftrace_sys.story.explain.programs import (
    interrupted,
    prog_load_invalid,
    prog_too_big,
    test_run_invalid,
)
from bpftrace_sys.story.explain.queries import not_a_cgroup, prog_query, task_fd, token
from bpftrace_sys.story.explain.uprobes import uprobe_fields, uprobe_file, uprobe_io, uprobe_place
from decoders.commands import BATCH, ELEMENT

_ELEMENT: Final = tuple(sorted(ELEMENT))
_BATCH: Final = tuple(sorted(BATCH))
_BY_ID: Final = tuple(sorted(ADMIN_COMMANDS))
_IDS: Final = tuple(name for name in _BY_ID if name.endswith("_ID"))
_ATTACH: Final = ("BPF_LINK_CREATE", "BPF_PROG_ATTACH")
_ON_CGROUPS: Final = (*_ATTACH, "BPF_PROG_DETACH", "BPF_PROG_QUERY")
_MPROG: Final = (errno.EEXIST, errno.ENOENT, errno.ESTALE, errno.ERANGE, errno.EBUSY)
_NETKIT: Final = (errno.ENXIO, errno.EACCES)
_KPROBE: Final = (errno.ENOENT, errno.EINVAL, errno.EILSEQ)
_UPDATE: Final = (errno.EPERM, errno.EINVAL, errno.ENOLINK, errno.EOPNOTSUPP)

ROWS: Final[tuple[tuple[tuple[str, ...], int, Explainer], ...]] = (
    (("BPF_PROG_LOAD",), errno.EPERM, prog_load_eperm),
    (("BPF_MAP_CREATE",), errno.EPERM, map_create_eperm),
    (("BPF_BTF_LOAD",), errno.EPERM, btf_load_eperm),
    (_BY_ID, errno.EPERM, admin_eperm),
    (("BPF_PROG_QUERY",), errno.EPERM, net_admin_eperm),
    ((*_ELEMENT, *_BATCH, "BPF_MAP_FREEZE"), errno.EPERM, map_access),
    (("BPF_OBJ_PIN",), errno.EPERM, pin_path),
    (("BPF_OBJ_PIN",), errno.ENOENT, pin_path),
    (("BPF_OBJ_PIN",), errno.EEXIST, pin_path),
    (("BPF_OBJ_GET",), errno.ENOENT, get_path),
    (("BPF_OBJ_GET",), errno.EACCES, get_path),
    (("perf_event_open",), errno.EPERM, perf_access),
    (("perf_event_open",), errno.EACCES, perf_access),
    (("perf_event_open",), errno.EPERM, locked_down),
    (("perf_event_open",), errno.ENOENT, perf_missing),
    (("perf_event_open",), errno.EINVAL, perf_invalid),
    *((("perf_event_open",), number, kprobe) for number in _KPROBE),
    (("perf_event_open",), errno.EINVAL, uprobe_file),
    (("perf_event_open",), errno.EINVAL, uprobe_place),
    (("perf_event_open", "BPF_LINK_CREATE"), errno.EIO, uprobe_io),
    (("perf_event_open",), errno.E2BIG, perf_too_big),
    (("perf_event_open",), errno.ESRCH, perf_nobody),
    (("perf_event_open",), errno.ENODEV, perf_nobody),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EINVAL, set_bpf),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EACCES, past_the_record),
    (("PERF_EVENT_IOC_SET_BPF",), errno.EEXIST, set_bpf),
    (("bpf",), errno.E2BIG, too_big),
    (("BPF_PROG_LOAD",), errno.E2BIG, prog_too_big),
    (("BPF_MAP_CREATE",), errno.E2BIG, map_too_big),
    (_ELEMENT, errno.E2BIG, element_too_big),
    ((ANY,), errno.EFAULT, unreadable),
    ((ANY,), errno.EBADF, wrong_fd),
    (("BPF_OBJ_GET_INFO_BY_FD",), errno.EBADFD, wrong_fd),
    (("BPF_TASK_FD_QUERY",), errno.EBADF, task_fd),
    (_ON_CGROUPS, errno.EBADF, not_a_cgroup),
    (("bpf",), errno.EINVAL, wrong_fd),
    (("bpf",), errno.EINVAL, unknown_command),
    (("bpf",), errno.EINVAL, leftovers),
    (("BPF_PROG_LOAD",), errno.EINVAL, prog_load_invalid),
    (("BPF_PROG_LOAD",), errno.EINVAL, array_of_others),
    (("BPF_MAP_CREATE",), errno.EINVAL, bad_template),
    (("BPF_MAP_CREATE",), ENOTSUPP, no_lru),
    (("BPF_MAP_CREATE",), ENOTSUPP, bad_template),
    (("BPF_MAP_CREATE",), ENOTSUPP, no_btf),
    (("BPF_MAP_CREATE",), errno.ENOMEM, no_memory),
    (("BPF_MAP_CREATE",), errno.EINVAL, map_create_invalid),
    (("BPF_BTF_LOAD",), errno.EINVAL, btf_invalid),
    (_ELEMENT, errno.EINVAL, element_invalid),
    (("BPF_MAP_UPDATE_ELEM",), errno.EINVAL, no_holder),
    (("BPF_MAP_UPDATE_ELEM",), errno.EBADF, no_holder),
    (("BPF_MAP_UPDATE_ELEM",), errno.EOVERFLOW, long_queue),
    (("BPF_MAP_UPDATE_ELEM",), errno.EINVAL, does_not_fit),
    (("BPF_MAP_UPDATE_ELEM",), errno.ENOTSOCK, no_socket),
    (_BATCH, errno.EINVAL, batch_flags),
    (_BATCH, errno.E2BIG, batch_stopped),
    (_BATCH, errno.ENOENT, batch_stopped),
    (_BATCH, errno.ENOSPC, batch_stopped),
    (("BPF_LINK_CREATE",), errno.EINVAL, xdp_modes),
    (("BPF_LINK_CREATE",), errno.EAFNOSUPPORT, netfilter),
    (("BPF_LINK_CREATE",), errno.EPROTO, netfilter),
    (("BPF_LINK_CREATE",), errno.ERANGE, netfilter),
    (("BPF_LINK_CREATE",), errno.EBADF, uprobe_file),
    (("BPF_LINK_CREATE",), errno.E2BIG, uprobe_fields),
    (("BPF_LINK_CREATE",), errno.EINVAL, uprobe_fields),
    (_ATTACH, errno.EINVAL, attach_invalid),
    (("BPF_LINK_CREATE",), errno.EINVAL, uprobe_place),
    (("BPF_LINK_CREATE",), errno.EINVAL, no_device),  # what XDP's says for ENODEV
    (("BPF_PROG_TEST_RUN",), errno.EINVAL, test_run_invalid),
    (("BPF_TASK_FD_QUERY",), errno.EINVAL, task_fd),
    (("BPF_TASK_FD_QUERY",), errno.ENOENT, task_fd),
    (("BPF_TASK_FD_QUERY",), ENOTSUPP, task_fd),
    (("BPF_PROG_QUERY",), errno.EINVAL, prog_query),
    (("BPF_PROG_QUERY",), errno.EOPNOTSUPP, prog_query),
    (("BPF_TOKEN_CREATE",), errno.EOPNOTSUPP, token),
    (("BPF_TOKEN_CREATE",), errno.EINVAL, token),
    (_ELEMENT, errno.ENOENT, element_there),
    (_ELEMENT, errno.EEXIST, element_there),
    ((*_ELEMENT, *_BATCH, "BPF_PROG_TEST_RUN", *_ATTACH), ENOTSUPP, no_operation),
    ((*_ELEMENT, *_BATCH, *_ATTACH), errno.EOPNOTSUPP, no_operation),
    (("BPF_LINK_CREATE", "BPF_PROG_ATTACH", "BPF_PROG_QUERY"), errno.ENODEV, no_device),
    (("BPF_RAW_TRACEPOINT_OPEN",), errno.ENOENT, raw_tracepoint_name),
    (("BPF_RAW_TRACEPOINT_OPEN",), errno.ENOENT, no_raw_tracepoint),
    (("BPF_RAW_TRACEPOINT_OPEN",), errno.EINVAL, raw_tracepoint_args),
    (("BPF_LINK_CREATE",), errno.ENOENT, no_symbol),
    (("BPF_LINK_CREATE",), errno.ESRCH, no_symbol),
    (_ATTACH, errno.EPERM, cgroup_taken),
    (_ON_CGROUPS, errno.ENOENT, cgroup_missing),
    (_ATTACH, errno.E2BIG, full),
    (_ATTACH, errno.EEXIST, namespace_taken),
    *(((*_ATTACH, "BPF_PROG_DETACH"), number, mprog) for number in _MPROG),
    *(((*_ATTACH, "BPF_PROG_DETACH", "BPF_PROG_QUERY"), number, netkit) for number in _NETKIT),
    (("BPF_LINK_CREATE",), errno.EBUSY, xdp_taken),
    (("BPF_LINK_CREATE",), errno.EEXIST, xdp_taken),
    (("BPF_LINK_CREATE",), errno.EOPNOTSUPP, xdp_no_driver),
    (("BPF_LINK_CREATE",), errno.EBUSY, netfilter_busy),
    *((("BPF_LINK_UPDATE",), number, update) for number in _UPDATE),
    (("BPF_LINK_DETACH",), errno.EOPNOTSUPP, detach),
    (("BPF_MAP_FREEZE",), errno.EBUSY, being_written),
    (_IDS, errno.ENOENT, no_more_ids),
    (("BPF_PROG_LOAD", "BPF_BTF_LOAD"), errno.ENOSPC, load_enospc),
    (("BPF_PROG_LOAD",), errno.EAGAIN, interrupted),
    ((ANY,), errno.EMFILE, no_fds),
    *(((ANY,), number, filtered) for number in (errno.EPERM, errno.EACCES, errno.ENOSYS)),
    (("write",), ANY_ERRNO, probe_file),
    (("BPF_PROG_LOAD",), ANY_ERRNO, verifier),  # its words, whatever the number
)
"""(commands or system calls, errno, what looks for the reason), in the order of looking."""

TABLE: Final[dict[tuple[str, int], list[Explainer]]] = {}
for _commands, _number, _row in ROWS:
    for _command in _commands:
        TABLE.setdefault((_command, _number), []).append(_row)
