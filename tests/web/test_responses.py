"""The Responses endpoints as plain HTTP: bytes of the stream, errors, and what is kept between requests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import Answer, Client, Json, Server, client_of

SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


async def respond(client: Client, model: str = "a/ok", said: Any = "hello there", **body: Any) -> Answer:
    return await client.post("/v1/responses", {"model": model, "input": said, **body})


def events_of(answer: Answer) -> list[tuple[str, Json]]:
    """(name, data) of each event; comments are left out."""
    found = []
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def response_of(answer: Answer) -> Json:
    """The response of an answer, or that of the last event of its stream."""
    found: Json = events_of(answer)[-1][1]["response"] if answer.streamed else answer.json
    return found


def text_of(response: Json) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


class TestAnswers:
    """Whole and streamed."""

    async def test_a_whole_answer(self, http: Client) -> None:
        """A response with its usage, and the headers that tell who answered."""
        answer = await respond(http, instructions="be brief", metadata={"a": "b"}, temperature=0.5)
        found = answer.json
        assert (found["object"], found["status"], found["model"]) == ("response", "completed", "a/ok")
        assert text_of(found) == SENTENCE
        assert (found["instructions"], found["metadata"], found["temperature"]) == ("be brief", {"a": "b"}, 0.5)
        assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (4, 8)
        assert answer.headers["x-llmproxy-selected-model"] == "a/ok"
        assert answer.headers["x-request-id"].startswith("req_")

    async def test_the_bytes_of_a_stream(self, http: Client) -> None:
        """Named events whose data repeat the name, each with the next number; nothing says `[DONE]`."""
        answer = await respond(http, stream=True)
        events = events_of(answer)
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert all(name == data["type"] for name, data in events)
        assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
        assert events[-1][0] == "response.completed"
        assert text_of(response_of(answer)) == SENTENCE
        assert b"[DONE]" not in answer.body

    @modes
    async def test_an_alias_and_a_pool(self, http: Client, stream: bool) -> None:
        """Names are those of every endpoint, and the response names who answered."""
        assert response_of(await respond(http, "gpt-4o-mini", stream=stream))["model"] == "b/ok"
        assert response_of(await respond(http, "llmproxy/pair", stream=stream))["model"] == "a/ok"

    async def test_a_stream_that_breaks(self, http: Client) -> None:
        """It ends with `response.failed`, which holds what was said and why there is no more."""
        answer = await respond(http, "a/cut+responses=1", stream=True)
        name, data = events_of(answer)[-1]
        found = data["response"]
        assert (answer.status, name, found["status"]) == (200, "response.failed", "failed")
        assert found["error"]["code"] == "server_error"
        assert found["error"]["message"]
        assert found["output"][0]["status"] == "incomplete"
        assert text_of(found) == "word0 word1 word2"

    async def test_a_stream_may_be_held_until_it_is_whole(self, http: Client) -> None:
        """The header that asks for it works here too: what breaks off is an error of its own."""
        body = {"model": "a/cut+responses=2", "input": "x", "stream": True}
        answer = await http.post("/v1/responses", body, headers={"x-llmproxy-delivery": "whole"})
        assert (answer.status, answer.error["code"]) == (502, "all_candidates_failed")


class TestErrors:
    """In OpenAI's shape."""

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({"input": None}, "input"),
            ({"input": []}, "input"),
            ({"input": [7]}, "input.0"),
            ({"input": [{"role": "nobody", "content": "x"}]}, "input.0.role"),
            ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input.0.content.0.type"),
            ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input.0.call_id"),
            ({"tools": [{"type": "file_search"}]}, "tools.0.type"),
            ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
            ({"instructions": 7}, "instructions"),
            ({"reasoning": "much"}, "reasoning"),
            ({"temperature": "hot"}, "temperature"),
            ({"stream": "yes"}, "stream"),
            ({"previous_response_id": 7}, "previous_response_id"),
        ],
    )
    async def test_a_wrong_field(self, http: Client, upstream: UpstreamThread, body: Json, param: str) -> None:
        """400 with the path of it; nobody is asked."""
        before = upstream.count()
        answer = await http.post("/v1/responses", {"model": "a/ok", "input": "x", **body})
        assert (answer.status, answer.error["param"]) == (400, param)
        assert answer.error["type"] == "invalid_request_error"
        assert upstream.count() == before

    async def test_no_json(self, http: Client) -> None:
        """400 `invalid_json`."""
        answer = await http.post("/v1/responses", b"{")
        assert (answer.status, answer.error["code"]) == (400, "invalid_json")

    @modes
    async def test_an_unknown_model(self, http: Client, stream: bool) -> None:
        """404, streamed or not."""
        answer = await respond(http, "nobody/knows", stream=stream)
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")

    @modes
    async def test_a_wait(self, http: Client, stream: bool) -> None:
        """429 with `Retry-After` and what was tried."""
        answer = await respond(http, f"a/status-429+retry-after=7+responses={stream}", stream=stream)
        assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
        assert answer.headers["Retry-After"] == "7"
        assert answer.json["error"]["attempts"][0]["status"] == 429

    async def test_an_unknown_response(self, http: Client) -> None:
        """404 to read or to delete; 400 with OpenAI's code to go on from."""
        for method in ("GET", "DELETE"):
            answer = await http.request(method, "/v1/responses/resp_nobody")
            assert (answer.status, answer.error["code"]) == (404, "not_found")
            assert "resp_nobody" in answer.error["message"]
        answer = await respond(http, previous_response_id="resp_nobody")
        assert (answer.status, answer.error["code"]) == (400, "previous_response_not_found")
        assert answer.error["param"] == "previous_response_id"

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    async def test_a_wrong_method(self, http: Client, method: str) -> None:
        """405 that names the right one."""
        answer = await http.request(method, "/v1/responses")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")

    async def test_a_wrong_new_item_is_named_by_its_own_place(self, http: Client) -> None:
        """Where a conversation goes on, places are counted in what the client has sent now."""
        first = response_of(await respond(http))
        said = [{"role": "user", "content": "x"}, {"role": "user", "content": 7}]
        answer = await respond(http, said=said, previous_response_id=first["id"])
        assert (answer.status, answer.error["param"]) == (400, "input.1.content")


class TestKept:
    """`store`, `previous_response_id` and what can be read again."""

    @modes
    async def test_what_is_kept_can_be_read(self, http: Client, stream: bool) -> None:
        """The very response, until it is deleted."""
        found = response_of(await respond(http, stream=stream))
        path = f"/v1/responses/{found['id']}"
        assert (await http.get(path)).json == found
        deleted = (await http.request("DELETE", path)).json
        assert deleted == {"id": found["id"], "object": "response", "deleted": True}
        assert (await http.get(path)).status == 404

    @modes
    async def test_a_conversation(self, http: Client, upstream: UpstreamThread, stream: bool) -> None:
        """Each turn reaches the upstream with all before it."""
        first = response_of(await respond(http, said="one", stream=stream))
        second = response_of(await respond(http, said="two", stream=stream, previous_response_id=first["id"]))
        await respond(http, said="three", stream=stream, previous_response_id=second["id"])
        said = [message["content"] for message in upstream.requests[-1].json["messages"]]
        assert said == ["one", SENTENCE, "two", SENTENCE, "three"]

    async def test_it_can_be_gone_on_from_at_once(self, http: Client) -> None:
        """When the last event of a stream has arrived, the response is there."""

        async def turns() -> None:
            before: Json = {}
            for _ in range(5):
                answer = await respond(http, stream=True, **before)
                assert answer.status == 200
                before = {"previous_response_id": response_of(answer)["id"]}

        await asyncio.gather(*(turns() for _ in range(8)))

    async def test_two_requests_of_one_id_are_two_responses(self, server: Server) -> None:
        """A client may give all its requests one `x-request-id`: each response has an id that nobody could guess."""
        async with client_of(server, **{"x-request-id": "always-the-same"}) as client:
            answers = [await respond(client, said=text) for text in ("one", "two")]
            ids = [response_of(answer)["id"] for answer in answers]
            assert len(set(ids)) == 2
            assert not any("always" in one for one in ids)
            assert [(await client.get(f"/v1/responses/{one}")).json["id"] for one in ids] == ids

    @modes
    async def test_nothing_is_kept_that_is_not_to_be(self, http: Client, stream: bool) -> None:
        """`store: false` leaves nothing behind, and neither does an answer that failed."""
        for model, body in (("a/ok", {"store": False}), (f"a/in-band-error+responses={stream}", {})):
            answer = await respond(http, model, stream=stream, **body)
            if answer.status == 200:
                assert (await http.get(f"/v1/responses/{response_of(answer)['id']}")).status == 404

    async def test_an_incomplete_response_is_kept(self, http: Client) -> None:
        """One that was cut by its limit can be gone on from."""
        found = response_of(await respond(http, max_output_tokens=3))
        assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert (await respond(http, said="go on", previous_response_id=found["id"])).status == 200
