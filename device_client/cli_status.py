"""What ``flagship-device status`` prints for people."""

from typing import Any


def show_status(answer: dict[str, Any]) -> None:
    """Print the agent's answer: what runs, what is open, how far the download is, what is waited for."""
    running = ", ".join(f"{name} {version}" for name, version in answer["running"].items()) or "nothing"
    link = "connected" if answer["connected"] else "not connected"
    print(f"{answer['device']}: {link}, runs {running}")
    for source in answer["sources"]:
        if source["trouble"]:
            print(f"  {'source' if source['is_ready'] else 'not asked'}: {source['name']}: {source['trouble']}")
    update = answer["update"]
    if update is None:
        print("no update is open")
        return
    phase = f" ({update['phase']})" if update["phase"] else ""
    print(f"rollout {update['offer']['rollout']}: {update['version'] or 'new version'} {update['state']}{phase}")
    if update["offer"].get("offline_until"):
        print(f"  from a medium: acts unasked until {update['offer']['offline_until']}")
    if answer["transfer"]:
        print(f"  {transferred(answer['transfer'])}")
    if update["state"] == "downloading" and answer["source"]:
        print(f"  {answer['source']}")
    for reason in update["reasons"]:
        print(f"  waits for {reason['gate']}: {reason['detail'] or reason['code']}")
    if update["code"]:
        print(f"  {update['code']}: {update['detail']}")


def transferred(transfer: dict[str, Any]) -> str:
    """Bytes by their way, rate and remaining time, in one line."""
    ways = ", ".join(
        f"{word} {_megabytes(transfer[name])}"
        for word, name in (("fetched", "fetched_bytes"), ("by delta", "delta_bytes"), ("copied", "copied_bytes"))
        if transfer[name] or word == "fetched"
    )
    text = f"{transfer['percent']:.0f} % of {_megabytes(transfer['total_bytes'])}: {ways}"
    if transfer["remaining_s"]:
        text += f"; {_megabytes(transfer['rate_bytes_s'])}/s, {transfer['remaining_s']:.0f} s left"
    return text


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
