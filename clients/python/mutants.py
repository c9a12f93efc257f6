"""Faults put in on purpose, one at a time, each of which must make its test fail.

    EXECPOOL_PG_BIN=… EXECPOOL_BIN=… python mutants.py [WORD]

It works on a copy; exits 1 where a fault survives, 2 where one can't be tried."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What is wrong, the test that must see it, the file, what stands there, what is put there.
MUTANTS = [
    ("a scope's end is not told", "scope::test_an_exception_ends_it_and_passes",
     "execution", "answer = self._end_at_sidecar(why)", "answer = None"),
    ("goodbyes that are on their way count", "scope::test_what_was_closed_in_order_is_no_leftover",
     "execution", "for pause in SETTLE:", "for pause in ():"),
    ("scopes of one id do not share", "scope::test_scopes_of_one_id_share_an_execution_that_ends_with_the_last",
     "registry", "is_last = execution.users == 0", "is_last = True"),
    ("a straggler comes in", "scope::test_a_straggler_does_not_bring_a_dead_run_back",
     "current", "and found.entered_by == here", ""),
    ("a closed coroutine's execution stays", "scope::test_a_coroutine_that_is_closed_while_it_enters_or_leaves_ends_its_scope",
     "scope", "entering.add_done_callback(_leave_at_once)", "pass"),
    ("a generator's reader is in its scope", "scope::test_a_decorated_generator_is_in_its_scope_and_its_reader_is_not",
     "decorate", "        current.scope.set(self._outside)\n        try:", "        try:"),
    ("a cancelled entry is forgotten", "cancellation::test_cancelled_at_two_hundred_points_nothing_is_left",
     "scope", "            await finish(workers.run(lambda: registry.leave(execution, \"cancelled as it began\")))\n", ""),
    ("a cancelled end is not waited for", "cancellation::test_cancelled_at_two_hundred_points_nothing_is_left",
     "workers", "            cancelled = error\n", "            raise\n"),
    ("no stream is held", "hold::test_a_killed_process_leaves_nothing",
     "hold", "                self._read(selector, cast(Hold, key.data))", "                cast(Hold, key.data).is_wanted = False"),
    ("a child keeps its parent's stream", "hold::test_a_forked_child_does_not_hold_what_is_its_parents",
     "control", "        held.close()\n\n\nos.register", "        globals().setdefault('kept', []).append(held)\n\n\nos.register"),
    ("a child ends its parent's execution", "hold::test_a_forked_child_connects_in_the_scope_and_does_not_end_it",
     "execution", "if not self.is_ours or not self.is_owned:", "if not self.is_owned:"),
    ("a restart is not survived", "hold::test_a_restart_of_the_sidecar_is_survived[kill]",
     "hold", "            hold.register()\n            hold.open()\n", "            hold.open()\n"),
    ("an implicit execution is held as it is", "hold::test_a_connection_that_comes_before_the_hold_after_a_restart_does_not_cost_its_deadline",
     "hold", "            self._adopt(hold)\n", ""),
    ("a child speaks on its parent's sockets", "direct::test_a_forked_child_does_not_speak_on_its_parents_connections",
     "execution", "        for act in self._in_child:", "        for act in []:"),
    ("a scope is left twice", "scope::test_a_scope_that_is_left_twice_does_not_end_the_run_of_another",
     "scope", "        if self.is_left:\n            return False\n", ""),
    ("a broken stream is not opened again", "hold::test_a_restart_of_the_sidecar_is_survived[terminate]",
     "hold", 'if ended is None or ended == "shutdown":', "if ended is None:"),
    ("an engine keeps its pool", "drivers::test_a_global_engine_serves_each_scope_its_own_connections[psycopg]",
     "sqlalchemy", "    engine.pool = _without_keeping(engine.pool)\n", ""),
    ("an engine of a scope is the thread's", "drivers::test_an_engine_of_a_scope_commits_on_return_and_belongs_to_it_from_any_thread",
     "sqlalchemy", "            _connect_in_scope(engine, settings, execution)\n    if", "            _connect_in_scope(engine, settings, None)\n    if"),
    ("an engine rolls back on return", "drivers::test_an_engine_of_a_scope_commits_on_return_and_belongs_to_it_from_any_thread",
     "sqlalchemy", '{"pool_reset_on_return": "commit"}', "{}"),
    ("a pool keeps connections", "drivers::test_a_pool_of_psycopg_gives_each_scope_its_own",
     "psycopg_pool", "        finally:\n            conn.close()", "        finally:\n            pass"),
    ("the loop waits for a SQLDatabase", "drivers::test_awaiting_a_sql_database_does_not_block_the_loop",
     "sql_database", "at = frame.f_lasti + 2", "at = 10**9"),
    ("the caller is a library's", "caller::test_every_driver_tells_caller_label_and_trace",
     "caller", "frame.f_back or (_switched_from() if not of_app else None)", "frame.f_back"),
    ("a password is in a message", "dsn::test_a_password_is_in_no_message",
     "dsn", 'r"\\1:***@"', 'r"\\g<0>"'),
    ("what a scope has left is not closed", "direct::test_what_is_left_open_in_a_scope_is_told_and_closed",
     "connections", "                _close(connection, one.loop)\n", ""),
    ("a pool does not know what it has lent", "direct::test_a_global_engine_keeps_its_pool_and_what_it_lent_is_taken_back",
     "sqlalchemy", "            execution.connections.forget(connection)\n", "            pass\n"),
    ("a query goes on after its scope", "direct::test_a_query_that_still_runs_is_cancelled_at_the_end",
     "connections", "            own.cancel()\n", "            return\n"),
    ("resources are closed first to last", "resources::test_they_are_closed_at_the_end_the_last_first",
     "resources", "self._tracked[::-1]", "self._tracked[:]"),
    ("a resource stays registered", "resources::test_they_are_closed_at_the_end_the_last_first",
     "resources", "            control.release(execution, tracked.number)", "            pass"),
    ("a coroutine waits for the sidecar", "resources::test_a_sidecar_that_hangs_does_not_keep_a_loop_waiting_and_hears_all_in_order",
     "telling", "        if not in_loop():", "        if True:"),
    ("what is to be told overtakes what waits", "resources::test_what_waits_to_be_told_comes_first_and_what_fails_hinders_nothing",
     "telling", "            self._tell_what_waits()\n            return act()", "            return act()"),
    ("a dead run is entered again from within", "hold::test_an_id_whose_run_the_sidecar_has_ended_is_begun_anew_by_who_is_not_in_it",
     "scope", "        _refuse_within_dead(chosen)\n", ""),
    ("a dead run is joined", "hold::test_an_id_whose_run_the_sidecar_has_ended_is_begun_anew_by_who_is_not_in_it",
     "registry", "                    execution = None\n", "                    pass\n"),
    ("the end of a dead run ends the next one", "hold::test_the_end_of_a_dead_run_leaves_alone_what_another_process_has_begun_by_its_id",
     "execution", "            return self._ended_before(control)\n", "            pass\n"),
    ("a child has its parent's dead run", "hold::test_a_forked_child_leaves_alone_what_its_parents_dead_run_has",
     "registry", "(*self._open.values(), *self._outlived)", "self._open.values()"),
    ("an engine does not see a sidecar that comes late", "late::test_a_global_engine_goes_through_it_from_then_on[made_by_instrument-psycopg]",
     "sqlalchemy", "            if _sidecar_of(settings, _place()[1]):", "            if False:"),
    ("a replaced pool keeps what it had lent", "late::test_a_global_engine_goes_through_it_from_then_on[made_by_us-psycopg]",
     "sqlalchemy", "                self.dispose()  # it was lent before, and nobody asks here any more\n", "                pass\n"),
    ("a replaced pool lets those down who wait", "late::test_who_waits_for_a_pool_as_it_comes_is_served",
     "sqlalchemy", " and not self.asking", ""),
    ("a pool's limit counts beside the sidecar's", "late::test_pools_are_limited_by_themselves_only_until_it_comes",
     "connecting", "        return scope.execution.sidecar is None", "        return True"),
    ("the change is not said", "late::test_a_connection_outside_of_any_scope_goes_through_it_and_says_so",
     "sidecar", "        used(sidecar, _ABSENT)\n", ""),
    ("an asynchronous run blocks its loop", "langgraph::test_an_asynchronous_run_does_not_block_its_loop_while_the_sidecar_is_slow",
     "langchain", "awaited if asks.f_code.co_flags & inspect.CO_COROUTINE else now", "now"),
    ("a run's error is lost", "langgraph::test_a_required_sidecar_that_is_away_fails_the_run",
     "langchain", "awaited if asks.f_code.co_flags & inspect.CO_COROUTINE else now", "awaited"),
    ("a scope in a node does not count", "langgraph::test_a_scope_within_a_node_counts_more_and_one_around_the_run_less",
     "current", " and run.outer_scope is found", ""),
    ("a run ends with its first node", "langgraph::test_a_run_is_an_execution_of_its_own_and_its_tools_are_in_it",
     "langchain", "run is None or run.root.members[0] != run_id", "run is None"),
    ("a straggler of a run is let in", "langgraph::test_code_that_outlives_its_run_is_refused",
     "langchain", "REMEMBERED = 256", "REMEMBERED = 0"),
    ("a run within a tool is for nothing", "langgraph::test_connections_are_labelled_by_their_tool",
     "langchain", "tool or parent.tool", "tool"),
    ("a run sets the scope of who streams it", "langgraph::test_who_iterates_over_a_stream_is_outside_of_its_run",
     "langchain", "contextvars.copy_context().run(self.scope.__enter__)", "self.scope.__enter__()"),
    ("a run does not say why it failed", "langgraph::test_a_run_that_fails_leaves_nothing_and_its_error_comes_through",
     "langchain", "        kind = None if self.error is None else type(self.error)\n", "        kind = None\n"),
    ("a checkpointer ends with a run", "langgraph::test_a_checkpointer_is_in_the_shared_execution_whichever_scope_asks",
     "connecting", 'Naming("shared", caller.caller(), label, None)', 'cls.begin().naming'),
    ("middleware and dependency begin two", "fastapi::test_middleware_and_dependency_together_are_one_execution",
     "fastapi", "if begun is not None:", "if False:"),
    ("an app within an app begins two", "fastapi::test_an_app_within_an_app_is_in_one_execution",
     "starlette", " or KEY in scope", ""),
    ("a scope that is never left stays", "scope::test_a_scope_that_is_never_left_ends_as_it_is_collected[direct]",
     "scope", "weakref.finalize(self, registry.forget, execution)", "weakref.finalize(self, int)"),
    ("a scope takes a later one away", "scope::test_scopes_may_be_left_in_any_order",
     "scope", "self._token is not None and current.scope.get() is self", "self._token is not None"),
    ("a run goes past the sidecar that has ended it", "scope::test_a_deadline_that_passes_as_it_is_entered_is_told_and_nothing_goes_past_the_sidecar[optional]",
     "execution", 'if refused.code != "no_such_execution":\n                    raise\n                raise', "if True:\n                    raise\n                raise"),
    ("a pool is waited for past the sidecar", "drivers::test_waiting_for_a_pool_goes_where_its_connections_go[sidecar]",
     "psycopg_pool", "    def wait(self, timeout", "    def wait_for(self, timeout"),
    ("a checkpointer stays direct", "late::test_a_checkpointer_goes_through_it_with_its_next_checkpoint",
     "langgraph", "    return connection.is_direct and", "    return False and"),
    ("a websocket is one execution", "fastapi::test_websockets_pass_through",
     "starlette", 'scope["type"] != "http" or', 'scope["type"] == "lifespan" or'),
    ("a request is outside of its execution", "fastapi::test_a_request_is_an_execution",
     "starlette", "            scope[KEY] = execution\n            await self.app(scope, receive, send)", "            pass\n        await self.app(scope, receive, send)"),
]  # fmt: skip


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    survivors = 0
    for what, test, file, old, new in MUTANTS:
        if word not in what and word not in test:
            continue
        with tempfile.TemporaryDirectory(prefix="ep-mutant-") as copied:
            copy = Path(copied)
            for part in ("src", "tests"):
                shutil.copytree(HERE / part, copy / part)
            shutil.copy(HERE / "pyproject.toml", copy)
            source = copy / f"src/execpool/{file}.py"
            text = source.read_text()
            if text.count(old) != 1:
                print(f"{source.name} has {text.count(old)} times, not once: {old}")
                return 2
            source.write_text(text.replace(old, new))
            died = failed(copy, test)
        survivors += not died
        print(f"{'killed' if died else 'SURVIVED':8}  {what:46}  by {test}", flush=True)
    return 1 if survivors else 0


def failed(copy: Path, test: str) -> bool:
    file, _, name = test.partition("::")
    try:
        told = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"tests/test_{file}.py::{name}"],
            cwd=copy, capture_output=True, text=True, timeout=300,
            env=os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    if " failed" not in told.stdout and " passed" not in told.stdout:
        print(told.stdout + told.stderr)
        raise SystemExit(2)
    return told.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
