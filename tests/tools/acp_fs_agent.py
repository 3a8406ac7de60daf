#!/usr/bin/env python3
"""A scripted agent that asks its client for files and terminals, for testing who serves them.

Standard library only. It does what the lines on its standard input say:

    {"puppet": {"say": [LINE, ...]}}    print these lines, texts as they are and everything else as JSON
    {"puppet": {"raw": TEXT}}           print this, with no end of line
    {"puppet": {"deaf": SECONDS}}       read nothing for so long
    {"puppet": {"exit": CODE}}          end; a negative code is the signal to end by
    {"method": "initialize"|"session/new"|"session/prompt", ...}
                                        answer as an agent of the Agent Client Protocol; the text of a prompt is a JSON
                                        list of [METHOD, PARAMS] to ask the client for, one after the other; what came of
                                        each is said as the message, a JSON list. In PARAMS "$LAST" is the terminal made last

and prints every other line it is given as {"got": LINE}. At the end of its input it ends with code 0.
"""

import json
import os
import signal
import sys
import time


def say(line):
    sys.stdout.write((line if isinstance(line, str) else json.dumps(line, separators=(",", ":"), ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def puppet(order):
    for line in order.get("say", []):
        say(line)
    if "raw" in order:
        sys.stdout.write(order["raw"])
        sys.stdout.flush()
    time.sleep(order.get("deaf", 0))
    if "exit" in order:
        if order["exit"] < 0:
            if order["exit"] != -signal.SIGKILL:
                signal.signal(-order["exit"], signal.SIG_DFL)
            os.kill(os.getpid(), -order["exit"])
        sys.exit(order["exit"])


def ask(number, method, params):
    say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    for line in sys.stdin:
        heard = json.loads(line)
        if heard.get("id") == number and "method" not in heard:
            return heard.get("result", heard.get("error"))
    sys.exit(0)


def prompted(request, client):
    session = request["params"]["sessionId"]
    asked = json.loads(request["params"]["prompt"][0]["text"])
    results, last = [], None
    for number, (method, params) in enumerate(asked):
        params = json.loads(json.dumps(params).replace("$LAST", last or ""))
        result = ask(number, method, dict(params, sessionId=session))
        last = (result or {}).get("terminalId", last)
        results.append(result)
    text = json.dumps([client] + results)
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    say({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session, "update": update}})
    return {"stopReason": "end_turn"}


def main():
    client = None
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        heard = json.loads(line)
        method = heard.get("method")
        if "puppet" in heard:
            puppet(heard["puppet"])
        elif method == "initialize":
            client = heard["params"].get("clientCapabilities")
            say({"jsonrpc": "2.0", "id": heard["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}}})
        elif method == "session/new":
            say({"jsonrpc": "2.0", "id": heard["id"], "result": {"sessionId": "s"}})
        elif method == "session/prompt":
            say({"jsonrpc": "2.0", "id": heard["id"], "result": prompted(heard, client)})
        else:
            say({"got": line.rstrip("\n")})


main()
