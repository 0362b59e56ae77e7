"""Children are told of once, whichever stop of a birth comes first: see late_stops.py."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from late_stops import ORDERS
from test_engine import Trace, Tracer
from test_engine import program as program
from test_engine import trace as trace

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void mark(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "/marker-%s", name);
    syscall(SYS_openat, AT_FDCWD, path, 0, 0);
}

/* A thread has a child, and when there is one, another thread of its process executes a program:
   who made the child is then gone, perhaps before it could say so, and its process lives on. */
static volatile pid_t made;
static int ends[2];
static int child(void *name) { mark("child"); write(ends[1], "x", 1); _exit(0); }
static void *makes(void *name)
{
    static char stack[65536];
    clone(child, stack + sizeof stack, CLONE_PARENT_SETTID | SIGCHLD, 0, &made);
    for (;;) pause();
}
static void executes(char *self, char *how)
{
    char fd[16];
    pthread_t t;
    pipe(ends);
    snprintf(fd, sizeof fd, "%d", ends[0]);
    pthread_create(&t, 0, makes, 0);
    while (!made) usleep(1000);
    execl(self, self, how, fd, (char *)0);
}

int main(int argc, char **argv)
{
    const char *what = argv[1];
    char c;
    int status;
    if (!strcmp(what, "waits")) {
        read(atoi(argv[2]), &c, 1);
    } else if (!strcmp(what, "computes")) {
        /* No call ever sleeps. */
        fcntl(atoi(argv[2]), F_SETFL, O_NONBLOCK);
        do for (volatile int n = 0; n < 10000000; n++); while (read(atoi(argv[2]), &c, 1) != 1);
    } else if (!strcmp(what, "executes")) {
        if (!fork()) executes(argv[0], argv[2]);
        wait(&status);
        return status != 0;
    } else if (!strcmp(what, "orphan")) {
        /* The parent of the child is killed. */
        pipe(ends);
        if (!fork()) {
            if (!fork()) child(0);
            pause();
        }
        wait(&status);
        read(ends[0], &c, 1);
        return WTERMSIG(status);
    } else if (!strcmp(what, "fork")) {
        if (!fork()) { mark("child"); _exit(7); }
        wait(&status);
        return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def births(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("births")
    (folder / "births.c").write_text(SOURCE)
    binary = folder / "births"
    subprocess.run([compiler, "-O1", "-w", "-o", binary, folder / "births.c", "-pthread"],
                   check=True)  # fmt: skip
    return str(binary)


def told_well(done: Trace, untold: int = 0) -> None:
    """Each child is told of before all that it does, once, and ends once; but for ``untold``
    ones, whose parents had no time to tell."""
    known = {done.all("execed")[0][1]}
    ended: list[int] = []
    for event in done.events:
        if event[0] == "forked":
            assert event[1] in known
            assert event[2] not in known
            known.add(event[2])
        elif event[0] == "exited":
            ended.append(event[1])
        assert event[1] in known or untold
    assert len(ended) == len(set(ended))
    assert len(set(ended) - known) == untold
    assert known <= set(ended)


@pytest.mark.parametrize("seccomp", [True, False])
@pytest.mark.parametrize("order", ["event first", "stop first"])
def test_every_way_to_have_children(
    trace: Tracer, program: str, seccomp: bool, order: str
) -> None:
    done = trace(program, "ways", follow=True, seccomp=seccomp, late=order)
    assert done.returncode == 0
    told_well(done)
    ways = [event[4] for event in done.all("forked")]
    assert sorted(ways) == sorted(
        ["fork", "vfork", "vfork", "fork", "clone", "thread", "fork", "fork"]
    )
    assert len(done.markers()) == 8


@pytest.mark.parametrize("order", ["stop and end first", "end first"])
def test_children_killed_at_birth(trace: Tracer, births: str, order: str) -> None:
    done = trace(births, "fork", follow=True, late=order)
    assert done.returncode == 9
    told_well(done)
    assert len(done.all("forked")) == 1
    assert [event[2:] for event in done.all("exited")] == [[None, 9], [9, None]]
    assert not done.markers()


@pytest.mark.parametrize("order", ["no event", "no event, stop last"])
def test_parents_killed_at_a_birth(trace: Tracer, births: str, order: str) -> None:
    """The child is let go on, and traced."""
    done = trace(births, "orphan", follow=True, late=order)
    assert done.returncode == 9
    told_well(done, untold=1)
    assert done.markers() == ["/marker-child"]


@pytest.mark.parametrize("how", ["waits", "computes"])
def test_parents_replaced_at_a_birth(trace: Tracer, births: str, how: str) -> None:
    """The process lives on, as another program: the child is known to be its child."""
    done = trace(births, "executes", how, follow=True, late="event lost")
    assert done.returncode == 0
    told_well(done)
    assert done.markers() == ["/marker-child"]
    assert [event[4] for event in done.all("forked")] == ["fork", "thread", "fork"]


def test_adopted_by_mistake(trace: Tracer, births: str) -> None:
    """Where we were wrong to give up, the event that comes after all makes no second child."""
    done = trace(births, "fork", follow=True, late="stop first", blind=True)
    assert done.returncode == 7
    told_well(done)
    assert len(done.all("forked")) == 1
    assert done.markers() == ["/marker-child"]


def test_orders_are_all_tried() -> None:
    text = Path(__file__).read_text()
    assert [order for order in ORDERS if f'"{order}"' not in text] == []
