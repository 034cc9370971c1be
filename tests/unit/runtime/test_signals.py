"""Ctrl-C and SIGTERM ask for a stop; a second signal is the usual one."""

import logging
import signal
import threading

import pytest

from wav2lip_npu.runtime.signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_sets_a_flag_and_the_second_stops(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    former = signal.signal(number, signal.default_int_handler)
    try:
        with caplog.at_level(logging.DEBUG), stop_signals() as stop:
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
            assert not caplog.records  # a signal handler must not log
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, former)


def test_handlers_are_restored_without_a_signal() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_have_an_event_that_nothing_sets() -> None:
    seen = []

    def run() -> None:
        with stop_signals() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
