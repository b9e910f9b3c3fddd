"""S: attacks on what relay guards."""

from __future__ import annotations

from tests.torture import doors, smuggling, supply, timing
from tests.torture.row import Row, by_tests, together

_ADMIN = "tests/daemon/test_admin.py::test"
_DASHBOARD = "tests/daemon/test_dashboard.py::test"
_BROWSER = "tests/browser/test_dashboard.py::test"
_DENIED = "tests/faults/test_denied_addresses.py::test"
_NAMES = "tests/faults/test_hostile_names.py::test"
_PAYLOADS = "tests/faults/test_hostile_payloads.py::test"
_SOURCES = "tests/contract/test_sources.py::test"

ROWS: tuple[Row, ...] = (
    Row(
        "S1",
        "P7",
        "secrets leak",
        "canaries in every key, header and URL; logs, store, admin side, tracebacks, /proc, backups, in every form",
        "seen nowhere; no core dumps",
        together(
            doors.process,
            by_tests("tests/daemon/test_secrets.py", "tests/test_secret.py", f"{_SOURCES}_no_repr_shows_a_secret"),
        ),
    ),
    Row(
        "S2",
        "P7",
        "timing",
        "the code is looked at; proofs that are wrong early and late, Welch's t",
        "only hmac.compare_digest, on bytes; |t| < 4.5",
        together(timing.proofs, by_tests("tests/faults/test_constant_time.py")),
        timed=True,
    ),
    Row(
        "S3",
        "P7",
        "replays",
        "a genuine request again, later, changed, after a restart",
        "a duplicate, or 401",
        together(
            doors.replays,
            by_tests(
                "tests/daemon/test_repeats.py::test_the_same_message_is_delivered_once_also_over_a_restart",
                f"{_SOURCES}_signed_times_hold_for_five_minutes_both_ways",
            ),
        ),
    ),
    Row(
        "S4",
        "P7",
        "server-side request forgery",
        "every spelling of a denied address; redirects, proxies, token URLs, names that turn to other addresses",
        "no connection is made; a config error, or `blocked_address`",
        together(
            doors.addresses,
            by_tests(
                f"{_DENIED}_a_redirect_does_not_lead_to_a_denied_address",
                f"{_DENIED}_a_proxy_at_a_denied_address_is_not_asked",
                f"{_DENIED}_a_proxy_is_not_told_to_connect_to_a_denied_address",
                f"{_DENIED}_a_proxy_is_not_told_to_connect_to_itself_where_loopback_is_denied",
                f"{_DENIED}_no_token_is_asked_for_at_a_denied_address",
                f"{_DENIED}_an_open_connection_serves_until_egress_or_tls_change",
                f"{_NAMES}_a_name_that_turns_to_a_denied_address_is_not_followed_there",
                f"{_NAMES}_of_a_names_addresses_those_denied_are_left_out",
            ),
        ),
    ),
    Row(
        "S5",
        "P7",
        "header injection",
        "CR, LF and NUL in headers that are passed on, and in what templates make",
        "failed at once (`template_error`), or one line; never a header more",
        by_tests(
            f"{_PAYLOADS}_what_a_payload_puts_into_a_header_stays_in_it",
            f"{_PAYLOADS}_a_header_that_is_passed_on_stays_one_line",
        ),
    ),
    Row(
        "S6",
        "P7",
        "injection into pages, logs and terminals",
        "scripts, ESC sequences, U+202E, forged log lines, in payloads, headers and answers; headless Chromium",
        "no script runs; one fact is one line; nothing is obeyed",
        by_tests(
            "tests/daemon/test_one_line.py",
            f"{_DASHBOARD}_hostile_payloads_are_text_on_every_page_and_never_an_error",
            f"{_DASHBOARD}_an_address_with_anything_in_it_is_answered_with_a_sound_page",
            f"{_DASHBOARD}_answers_of_destinations_are_text_too",
            f"{_BROWSER}_a_hostile_payload_is_text_and_breaks_nothing_on_a_narrow_screen",
            f"{_BROWSER}_a_hostile_payload_is_text_in_live_rows_too",
        ),
    ),
    Row(
        "S7",
        "P7",
        "requests forged by other sites",
        "forms, text/plain, pictures, preflights, with the browser's credentials; headless Chromium",
        "403 or 405; no cookies; nothing changes",
        together(
            doors.forgeries,
            by_tests(
                f"{_ADMIN}_what_another_sites_page_sends_is_refused_whatever_its_credentials",
                f"{_BROWSER}_another_site_can_neither_act_nor_read_with_the_browsers_credentials",
            ),
        ),
    ),
    Row(
        "S8",
        "P7",
        "the admin side is exposed",
        "no token, wrong tokens, names bound anew, configs that listen to the world",
        "401, 421, exit 78",
        together(
            doors.strangers,
            by_tests(
                f"{_ADMIN}_the_last_token_cannot_be_taken_away_while_others_can_reach_the_admin_side",
                f"{_ADMIN}_a_socket_handed_over_that_others_can_reach_needs_a_token_too",
            ),
        ),
    ),
    Row("S9", "P7", "paths", "each on either side", "404 or 400; no file served", smuggling.paths),
    Row(
        "S10",
        "P4 P6",
        "poison events",
        "events on which filters raise, templates fail or never end",
        "`template_error`, or explained; the queue and other routes go on",
        by_tests(
            f"{_PAYLOADS}_a_template_that_fails_or_never_ends_fails_its_route_at_once_and_no_other",
            "tests/test_pattern.py::test_a_where_that_raises_does_not_match_says_so_and_is_counted",
            "tests/test_template.py::test_while_a_template_fails_other_routes_go_on",
            "tests/test_template.py::test_a_bomb_ends_within_a_second",
            "tests/test_rendering.py",
        ),
    ),
    Row(
        "S11",
        "P7",
        "the supply chain",
        "locks, imports, pip-audit; with a count, an empty environment",
        "all pinned with hashes; imports are what is declared; no known vulnerability",
        supply.chain,
    ),
)
