"""The options of strace 7.2: names and what they take, from its strace.c and filter_qualify.c."""

from __future__ import annotations

from typing import Final

SHORT: Final = "a:Ab:cCdDe:E:fFhiI:knNo:O:p:P:qrs:S:tTu:U:vVwxX:yYzZ"
"""As getopt(3) has them: a colon behind those that take an argument."""

LONG: Final = str.split("""
    columns= output-append-mode detach-on= summary-only summary debug daemonize[=]
    daemonised[=] daemonized[=] env= follow-forks output-separately help instruction-pointer
    interruptible= kill-on-exit stack-trace[=] stack-traces[=] stack-trace-frame-limit=
    syscall-limit= syscall-number arg-names output= summary-syscall-overhead= attach=
    trace-path= relative-timestamps[=] string-limit= summary-sort-by= absolute-timestamps[=]
    timestamps[=] syscall-times[=] user= summary-columns= no-abbrev version
    summary-wall-clock strings-in-hex[=] const-print-style= pidns-translation
    successful-only failed-only failing-only seccomp-bpf tips[=] argv0= always-show-pid
    color= trace= trace-fds= abbrev= verbose= raw= signals= status= read= write= fault=
    inject= kvm= namespace[=] quiet[=] silent[=] silence[=] decode-fds[=] decode-pids=
    secontext[=]
""")
"""With ``=`` behind those that take an argument, ``[=]`` behind those that may."""

QUALIFIERS: Final = str.split("""
    trace t trace-fd trace-fds fd fds abbrev a verbose v raw x signal signals s status quiet
    silent silence q read reads r write writes w fault inject kvm decode-fd decode-fds
    decode-pid decode-pids secontext namespace
""")
"""Before the ``=`` of -e."""
