"""Textual gradients with engines that are functions of the prompt, and the client against a server of our own."""

import http.server
import json
import re
import threading
from typing import ClassVar

import pytest

from nablax import estimate


def text(value, role="a text", **options):
    return estimate.TextVariable(value, role=role, **options)


def asked(template, role, **parents):
    return estimate.TextVariable.asked(lambda prompt: f"[{prompt}]", template, role=role, **parents)


class Critic:
    """Names the text, what was made of it and the feedback it saw, and keeps what it was asked."""

    def __init__(self):
        self.prompts = []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        role = re.search(r'<text role="(.*?)">', prompt)[1]
        if prompt.startswith("Several"):
            return f"summary of {prompt.count('<feedback>')} on {role}"
        made = re.search(r'<answer role="(.*?)">', prompt)[1]
        seen = re.search(r"<feedback>\n(.*?)\n</feedback>", prompt, re.DOTALL)
        return f"{role}<-{made}" + (f" ({seen[1]})" if seen else "")


def chain(params):
    draft = asked("{instruction} {question}", "draft", instruction=params["instruction"], question=text("why?"))
    return asked("judge {draft}", "verdict", draft=draft)


def learnable(value="say", role="instruction"):
    return text(value, role, learnable=True)


def test_feedback_comes_down_the_chain_with_a_call_for_each_edge_that_leads_to_a_parameter():
    critic = Critic()
    value, grads = estimate.textual_gradient(chain, engine=critic)({"instruction": learnable()})
    assert value == "[judge [say why?]]"
    assert grads == {"instruction": ("instruction<-draft (draft<-verdict)",)}
    assert len(critic.prompts) == 2  # the question needs none
    last, first = critic.prompts
    assert "judge [say why?]" in last and "is a judgement" in last and "<feedback>" not in last
    assert "\nsay\n" in first and "say why?" in first and "draft<-verdict" in first


def test_what_is_used_several_times_gets_its_feedback_in_order_of_use():
    def loss(params):
        word = params["word"]
        one = asked("first {word}", "first", word=word)
        two = asked("second {word} and {again}", "second", word=word, again=word)
        return asked("{two} after {one}", "end", two=two, one=one)

    for _ in range(3):
        critic = Critic()
        _, grads = estimate.textual_gradient(loss, engine=critic)({"word": learnable("w", "word")})
        # Order of use is the order in which the texts are there: the last prompt names the second text first.
        assert grads["word"] == (
            "word<-second (second<-end)",
            "word<-second (second<-end)",
            "word<-first (first<-end)",
        )
        assert len(critic.prompts) == 5


def test_a_diamond_is_gone_through_once_with_all_feedback_and_the_prompts_are_the_same_every_time():
    def loss(params):
        middle = asked("{word}", "middle", word=params["word"])
        left, right = (asked(f"{side} {{middle}}", side, middle=middle) for side in ("left", "right"))
        return asked("{left}{right}", "end", left=left, right=right)

    runs = []
    for _ in range(2):
        critic = Critic()
        grads = estimate.textual_gradient(loss, engine=critic)({"word": learnable("w", "word")})[1]
        runs.append(critic.prompts)
        assert grads["word"] == ("word<-middle (middle<-left (left<-end)\nmiddle<-right (right<-end))",)
    assert runs[0] == runs[1] and len(runs[0]) == 5


def test_a_batch_of_losses_and_their_summary_and_a_parameter_that_nothing_depends_on():
    def batch(params):
        return [asked(f"{{word}} {number}", f"loss {number}", word=params["word"]) for number in range(3)]

    params = {"word": learnable("w", "word"), "idle": learnable("i", "idle")}
    value, grads = estimate.textual_gradient(batch, engine=Critic())(params)
    assert value == "[w 0]\n\n[w 1]\n\n[w 2]"
    assert grads == {"word": ("word<-loss 0", "word<-loss 1", "word<-loss 2"), "idle": ()}
    critic = Critic()
    grads = estimate.textual_gradient(batch, engine=critic, summarise=True)(params)[1]
    assert grads == {"word": ("summary of 3 on word",), "idle": ()} and len(critic.prompts) == 4


def test_a_long_chain_needs_no_recursion():
    def loss(params):
        last = params["word"]
        for number in range(3000):
            last = estimate.TextVariable.asked(lambda prompt: "x", "{last}", role=str(number), last=last)
        return last

    critic = []
    estimate.textual_gradient(loss, engine=lambda prompt: critic.append(prompt) or "f")({"word": learnable()})
    assert len(critic) == 3000


def test_texts_are_rewritten_within_constraints_and_with_their_past():
    prompts = []

    def engine(prompt):
        prompts.append(prompt)
        return f"Here it is: <improved> version {len(prompts)} </improved> Good?"

    rule = estimate.textual_descent(engine, constraints=["no vowels", "short"], momentum=2)
    params = {"a": learnable("version 0"), "b": learnable("b")}
    state = rule.init(params)
    for _ in range(4):
        params, state = rule.update({"a": ("shorter", "and clearer"), "b": ()}, state, params)
    assert params["a"].value == "version 4" and params["a"].learnable and params["b"].value == "b"
    assert state.result == ("rewritten", "no feedback") and state.past == (("version 2", "version 3"), ())
    assert len(prompts) == 4 and "- no vowels\n- short" in prompts[0] and "<version>" not in prompts[0]
    assert "shorter\n\nand clearer" in prompts[3]
    assert re.findall(r"<version>\n(.*)\n</version>", prompts[3]) == ["version 1", "version 2"]


@pytest.mark.parametrize("said", ["I would rather not.", "<improved>never closed", "</improved> wrong way <improved>"])
def test_an_answer_without_tags_leaves_the_value_and_says_so(said):
    rule = estimate.textual_descent(lambda prompt: said, momentum=1)
    params = {"a": learnable("kept")}
    params, state = rule.update({"a": ("shorter",)}, rule.init(params), params)
    assert params["a"].value == "kept" and state.result == (f"no tags: {said}",) and state.past == ((),)


def test_braces_in_values_are_left_alone():
    made = estimate.TextVariable.asked(lambda p: p, "{{x}} {code}", role="r", code=text("{not a name}"))
    assert made.value == "{x} {not a name}"


class Server(http.server.BaseHTTPRequestHandler):
    replies: ClassVar[list] = []
    seen: ClassVar[list] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers.get("Authorization"), body))
        status, reply = self.replies.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    Server.replies, Server.seen = [], []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = http.server.HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}/v1/"
    made.shutdown()
    thread.join()
    made.server_close()


def reply(content):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def test_a_chat_server_is_asked_in_its_protocol_and_again_after_what_may_pass(server):
    Server.replies = [(429, "slow down"), (503, "soon"), (200, reply("salut ∇"))]
    engine = estimate.chat_engine(server, "m", token="secret", system="Be brief.")
    assert engine("hello") == "salut ∇"
    path, token, body = Server.seen[-1]
    assert path == "/v1/chat/completions" and token == "Bearer secret" and len(Server.seen) == 3
    assert body["model"] == "m" and body["temperature"] == 0.0
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("replies", "words", "asked"),
    [
        ([(401, "who are you?")], "401 .*who are you", 1),
        ([(500, "a")] * 3, "500 .*Asked 3 times", 3),
        ([(200, "<html>")], "Is it a chat server", 1),
        ([(200, json.dumps({"choices": []}))], "choices\\[0\\]", 1),
        ([(200, reply(None))], "choices\\[0\\]", 1),
    ],
)
def test_a_server_that_does_not_answer_is_said_in_its_own_words(server, replies, words, asked):
    Server.replies = list(replies)
    with pytest.raises(RuntimeError, match=words):
        estimate.chat_engine(server, "m")("hello")
    assert len(Server.seen) == asked and all(token is None for _, token, _ in Server.seen)


def test_nobody_at_the_address():
    with pytest.raises(RuntimeError, match="Asked 1 times"):
        estimate.chat_engine("http://127.0.0.1:9/v1", "m", retries=0, timeout=2.0)("hello")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: text(3), "value, a text"),
        (lambda: asked("{a} {b}", "r", a=text("a")), "names \\['a'\\]"),
        (lambda: asked("{a}", "r", a="a"), "a TextVariable"),
        (lambda: estimate.TextVariable.asked(lambda p: 3, "{a}", role="r", a=text("a")), "answers with a text"),
        (lambda: estimate.textual_gradient(chain, engine="gpt"), "engine, a function"),
        (lambda: estimate.textual_gradient(3, engine=Critic()), "loss, a function"),
        (lambda: estimate.textual_gradient(chain, engine=Critic())({"instruction": text("x")}), "learnable=True"),
        (lambda: estimate.textual_gradient(lambda p: "good", engine=Critic())([learnable()]), "returns a TextVariable"),
        (lambda: estimate.textual_descent(Critic(), constraints="short"), "a list of texts"),
        (lambda: estimate.textual_descent(Critic()).update(("x",), (((),), ()), {"a": "x"}), "learnable=True"),
        (
            lambda: (rule := estimate.textual_descent(Critic())).update({}, rule.init([learnable()]), [learnable()]),
            "feedback on 1 texts",
        ),
        (lambda: estimate.chat_engine("localhost:8000", "m"), "http://"),
        (lambda: estimate.chat_engine("http://x", "m", timeout=0), "timeout"),
    ],
)
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words):
        call()
