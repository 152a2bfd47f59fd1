"""The chat page in a real browser."""

import json

import pytest
from playwright.sync_api import expect, sync_playwright
from serve_fakes import NAME, FakeEngine, live, wait_until


@pytest.fixture(scope="module")
def engine():
    return FakeEngine(context=1024, delay=0.004)


@pytest.fixture(scope="module")
def window(chromium):
    with sync_playwright() as p:
        browser = p.chromium.launch(**chromium)
        yield browser
        browser.close()


@pytest.fixture
def page(window, url):
    """A fresh page. It fails the test when a script fails, or anything is asked of another server."""
    page, wrong = window.new_page(), []
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on(
        "request",
        lambda request: None if request.url.startswith((url, "data:")) else wrong.append(f"request: {request.url}"),
    )
    page.on(
        "console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.goto(url)
    yield page
    page.close()
    assert wrong == []


def send(page, text):
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def finished(page):
    expect(page.locator("#send")).to_be_visible()


def last_answer(page):
    return page.locator(".message.assistant").last.locator(".body")


def test_type_send_and_read_the_answer(page):
    expect(page.locator("#model")).to_have_text(NAME)
    expect(page.locator("#send")).to_be_disabled()
    page.locator("#prompt").press_sequentially("hello there")
    page.click("#send")
    expect(last_answer(page)).to_have_text("You said: hello there")
    expect(page.locator(".message.user .text")).to_have_text("hello there")
    expect(page.locator("#prompt")).to_have_value("")
    finished(page)
    expect(page.locator("#window")).to_contain_text("of 1024 tokens")
    expect(page.locator("#status")).to_have_text("Answer finished.")


def test_shift_enter_makes_a_line_and_enter_sends(page):
    page.locator("#prompt").press_sequentially("one")
    page.press("#prompt", "Shift+Enter")
    page.locator("#prompt").press_sequentially("two")
    page.press("#prompt", "Enter")
    expect(page.locator(".message.user .text")).to_have_text("one\ntwo")
    finished(page)


def test_the_answer_grows_and_stop_ends_it(page, engine):
    send(page, "count 400")
    sizes = []
    wait_until(
        lambda: (
            sizes.append(len(last_answer(page).inner_text()) if last_answer(page).count() else 0) or len(set(sizes)) > 4
        )
    )
    assert sizes == sorted(sizes)
    page.click("#stop")
    finished(page)
    wait_until(lambda: engine.running == 0)
    stopped = last_answer(page).inner_text()
    assert stopped.startswith("0 1 2 3") and not stopped.endswith("399")
    expect(page.locator(".message.assistant .facts")).to_have_text("stopped")
    page.wait_for_timeout(100)
    assert last_answer(page).inner_text() == stopped
    send(page, "and now")  # the conversation goes on
    expect(last_answer(page)).to_have_text("You said: and now")


def test_escape_stops_too(page, engine):
    send(page, "count 400")
    wait_until(lambda: last_answer(page).count() and last_answer(page).inner_text())
    page.keyboard.press("Escape")
    finished(page)
    wait_until(lambda: engine.running == 0)


def test_an_edited_message_is_sent_again_and_what_followed_is_gone(page):
    for text in ("first", "second"):
        send(page, text)
        expect(last_answer(page)).to_have_text(f"You said: {text}")
        finished(page)
    page.locator(".message.user").first.hover()
    page.locator(".message.user .edit").first.click()
    page.locator(".editor textarea").fill("changed")
    page.click(".editor .cancel")
    expect(page.locator(".message.user .text")).to_have_text(["first", "second"])
    page.locator(".message.user .edit").first.click()
    page.locator(".editor textarea").fill("changed")
    page.click(".editor .save")
    expect(page.locator(".message.user .text")).to_have_text(["changed"])
    expect(page.locator(".message.assistant .body")).to_have_text(["You said: changed"])
    finished(page)


def test_an_answer_can_be_asked_for_again(page, engine):
    send(page, "dice")
    finished(page)
    before = len(engine.prompts)
    page.click(".regenerate")
    wait_until(lambda: len(engine.prompts) == before + 1)
    finished(page)
    assert engine.prompts[-1] == engine.prompts[-2] and engine.asked[-1]["seed"] != engine.asked[-2]["seed"]
    expect(page.locator(".message.assistant")).to_have_count(1)


def test_commands_set_the_sampling_and_reach_the_engine(page, engine):
    page.fill("#prompt", "/t")
    expect(page.locator("#commands li")).to_have_count(2)
    for line, reply in {
        "/temperature 0": "temperature 0, top-k 50",
        "/topk 5": "temperature 0, top-k 5",
        "/topk -1": "takes a number",
        "/temperature hot": "takes a number",
        "/help": "/clear",
        "/what": "no command /what",
    }.items():
        send(page, line)
        expect(page.locator(".note").last).to_contain_text(reply)
    send(page, "hello")
    finished(page)
    assert (engine.asked[-1]["temperature"], engine.asked[-1]["top_k"]) == (0, 5)
    assert len([p for p in page.locator(".message.user").all()]) == 1
    send(page, "/clear")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator("#welcome")).to_be_visible()


def test_new_chat_forgets_and_stops(page, engine):
    send(page, "count 400")
    wait_until(lambda: engine.running == 1)
    page.click("#new-chat")
    expect(page.locator(".message")).to_have_count(0)
    wait_until(lambda: engine.running == 0)
    send(page, "alone")
    expect(last_answer(page)).to_have_text("You said: alone")
    finished(page)
    assert engine.tokenizer.decode(engine.prompts[-1]).count("<|user_start|>") == 1


def test_a_tool_call_stands_apart(page):
    send(page, "sum 12+30")
    finished(page)
    expect(page.locator(".tool .tool-code")).to_have_text("12+30")
    expect(page.locator(".tool .tool-output")).to_have_text("42")
    expect(page.locator(".message.assistant .text")).to_have_text(["The sum is ", "42."])


def test_a_failure_is_said_and_can_be_tried_again(page, engine):
    send(page, "break")
    expect(page.locator(".error")).to_contain_text("the server failed")
    page.click(".retry")
    wait_until(lambda: engine.running == 0)
    expect(page.locator(".error")).to_have_count(1)
    expect(page.locator(".message.assistant")).to_have_count(1)


def test_a_server_that_is_gone_is_said_in_words(window, url):
    page = window.new_page()
    page.goto(url)
    page.route("**/v1/chat/completions", lambda route: route.abort())
    send(page, "hello")
    expect(page.locator(".error")).to_contain_text("The server does not answer")
    page.close()


def test_a_conversation_longer_than_the_context_drops_its_oldest_turns(window):
    engine = FakeEngine(context=160)
    with live(engine) as url:
        page = window.new_page()
        page.goto(url)
        for i in range(8):
            send(page, f"message {i} xx")
            expect(last_answer(page)).to_have_text(f"You said: message {i} xx")
            finished(page)
        expect(page.locator(".error")).to_have_count(0)
        assert page.locator(".message.forgotten").count() >= 4
        assert all(len(prompt) < 160 for prompt in engine.prompts)
        send(page, "y" * 1000)
        expect(page.locator(".error")).to_contain_text("context window")
        page.close()


PAYLOADS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg onload='window.hit = 1'></svg>",
    "<svg/onload=hit=1>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'></iframe>",
    "<a href='javascript:window.hit=1'>click</a>",
    "[click](javascript:hit=1)",
    "![x](http://example.invalid/steal.png)",
    "</p></article><script>hit=1</script>",
    "<style>@import url(http://example.invalid/x.css)</style>",
    "<input autofocus onfocus=hit=1>",
    "<details open ontoggle=hit=1>",
    "&lt;script&gt;hit=1&lt;/script&gt;",
    "<link rel=stylesheet href=//example.invalid>",
    "<math><mtext><table><mglyph><style><img src=x onerror=hit=1>",
    "'-hit=1-'",
    '" onmouseover="hit=1',
    "${hit=1} {{hit=1}} `hit=1`",
    "<meta http-equiv=refresh content='0;url=http://example.invalid'>",
    "<base href='http://example.invalid/'>",
    "\u202ehit\u202c\u2028<b>",
]


def test_nothing_that_is_said_becomes_markup(page):
    for payload in PAYLOADS:
        send(page, payload)
        finished(page)
        assert page.locator(".message.user .text").last.text_content() == payload
        assert last_answer(page).text_content() == f"You said: {payload}"
        page.click("#new-chat")
    send(page, "/<img/src=x/onerror=hit=1>")
    send(page, "sum '<img src=x onerror=hit=1>'")
    finished(page)
    expect(page.locator(".tool-code")).to_have_text("'<img src=x onerror=hit=1>'")
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            status=400,
            content_type="application/json",
            body=json.dumps({"error": {"message": "<img src=x onerror=hit=1>"}}),
        ),
    )
    send(page, "hello")
    expect(page.locator(".error span")).to_have_text("<img src=x onerror=hit=1>")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None
    assert page.locator("#chat").locator("script, img, iframe, a, style, link, meta, base, b, details").count() == 0


def test_everything_works_from_the_keyboard_and_has_a_name(page):
    send(page, "hello")
    finished(page)
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, textarea, meter')].filter(node =>
        !(node.getAttribute('aria-label') || node.textContent.trim() || (node.labels && node.labels.length))).length""")
    assert unnamed == 0
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.keyboard.press("Shift+Tab")
    assert "regenerate" in page.evaluate("document.activeElement.className")
    page.keyboard.press("Alt+n")
    expect(page.locator(".message")).to_have_count(0)


def test_light_and_dark_both_read_well_and_the_choice_is_kept(page):
    def contrast():  # of body text on the page (WCAG wants 4.5)
        return page.evaluate("""() => {
            const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
            const light = css => { const [r, g, b] = css.match(/[\\d.]+/g).map(v => linear(v / 255));
                return .2126 * r + .7152 * g + .0722 * b; };
            const page = light(getComputedStyle(document.body).backgroundColor);
            const ratio = ink => (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05);
            const inks = [document.body, document.getElementById('foot')].map(node => getComputedStyle(node).color);
            return Math.min(...inks.map(light).map(ratio)); }""")

    themes = set()
    for _ in range(2):
        themes.add(page.evaluate("document.documentElement.dataset.theme"))
        assert contrast() > 4.5
        page.click("#theme")
    assert themes == {"light", "dark"}
    page.click("#theme")
    chosen = page.evaluate("document.documentElement.dataset.theme")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == chosen
