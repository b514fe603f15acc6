"""A service that scores by length, with answers on demand, and a client of it."""

import threading
import time

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from codepmp_ray.client import RewardClient
from codepmp_ray.client.answers import Hints

HINTS = Hints("evaluation.endpoint", "MY_KEY")


def error_answer(status, message, **headers):
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


class FakeService:
    """Scores a candidate by its length; `script` holds answers to give before that."""

    def __init__(self):
        self.app = FastAPI()
        self.script = []
        self.requests = []
        self.app.post("/v1/bon")(self.bon)
        self.app.get("/v1/models")(self.models)
        self.cards = []

    async def models(self):
        return {"object": "list", "data": self.cards}

    async def bon(self, request: Request):
        body = await request.json()
        self.requests.append((body, request.headers.get("authorization")))
        if self.script:
            return self.script.pop(0)
        data = [
            {"index": i, "score": float(len(text)), "num_tokens": len(text), "truncated": False}
            for i, text in enumerate(body["candidates"])
        ]
        return {"data": data[::-1]}  # by rank, as the service may


@pytest.fixture(scope="module")
def server():
    fake = FakeService()
    config = uvicorn.Config(fake.app, host="127.0.0.1", port=0, log_level="error")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    fake.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    running.should_exit = True
    thread.join()


@pytest.fixture
def service(server):
    server.script.clear()
    server.requests.clear()
    return server


@pytest.fixture
def client(service):
    waits = []
    with RewardClient(service.url + "/", "sk-test", HINTS, sleep=waits.append) as made:
        made.waits = waits
        yield made
