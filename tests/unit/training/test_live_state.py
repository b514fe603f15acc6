"""The state that a checkpoint is made of is that of now, however often it was asked for."""

from __future__ import annotations

import torch

from codepmp_ray.training.live_state import LiveState


def test_it_follows_updates_settings_and_memory_that_was_replaced() -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    live = LiveState()
    for number in range(4):
        if number == 2:
            model.weight.data = model.weight.data.clone()
        if number == 3:
            state = optimizer.state[model.weight]
            state["exp_avg"] = state["exp_avg"].clone()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
        found = live.of(model, optimizer)
        moments = found["optimizer"]["state"]["weight"]["exp_avg"]
        assert found["model"]["weight"].equal(model.weight)
        assert moments.equal(optimizer.state[model.weight]["exp_avg"])
        assert found["optimizer"]["param_groups"][0]["lr"] == 0.1 / (number + 1)
        assert sorted(found["optimizer"]["param_groups"][0]["params"]) == ["bias", "weight"]


def test_it_is_made_once_while_its_tensors_stay(monkeypatch) -> None:
    from codepmp_ray.training import live_state

    calls, real = [], live_state.get_state_dict
    monkeypatch.setattr(
        live_state, "get_state_dict", lambda *args: calls.append(args) or real(*args)
    )
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    live = LiveState()
    for _ in range(3):
        live.of(model, optimizer)
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    assert len(calls) == 1
