#!/usr/bin/python3
"""An agent of the Agent Client Protocol that does what its prompt says, one line each:

say TEXT            says it
ask KIND TARGET     asks to be allowed, then does it: execute runs TARGET in a shell, edit writes TARGET
both A ; B          asks to be allowed to run two commands, both at once

What it may not do it leaves, and says so. Nothing but Python's own library.
"""

import json
import subprocess
import sys

OPTIONS = [
    {"optionId": "opt-always", "name": "Always", "kind": "allow_always"},
    {"optionId": "opt-yes", "name": "Yes", "kind": "allow_once"},
    {"optionId": "opt-no", "name": "No", "kind": "reject_once"},
]
SESSION = "agent-session"


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def say(text):
    content = {"type": "text", "text": text + "\n"}
    update = {"sessionUpdate": "agent_message_chunk", "content": content}
    send({"method": "session/update", "params": {"sessionId": SESSION, "update": update}})


class Agent:
    def __init__(self):
        self.prompt = None
        self.todo = []
        self.asked = {}
        self.requests = 0

    def ask(self, kind, target):
        number = self.requests
        self.requests += 1
        name = {"execute": "Bash", "edit": "Edit"}.get(kind, kind)
        raw = {"command": target} if kind == "execute" else {"file_path": target, "content": "written\n"}
        call = {"toolCallId": f"call-{number}", "title": f"{name} {target}", "kind": kind, "status": "pending", "rawInput": raw}
        self.asked[number] = (kind, target)
        send({"id": number, "method": "session/request_permission",
              "params": {"sessionId": SESSION, "toolCall": call, "options": OPTIONS}})

    def go_on(self):
        while self.prompt is not None and not self.asked:
            if not self.todo:
                send({"id": self.prompt, "result": {"stopReason": "end_turn"}})
                self.prompt = None
                return
            verb, _, rest = self.todo.pop(0).partition(" ")
            if verb == "say":
                say(rest)
            elif verb == "ask":
                kind, _, target = rest.partition(" ")
                self.ask(kind, target)
            elif verb == "both":
                for target in rest.split(" ; "):
                    self.ask("execute", target)

    def answered(self, number, outcome):
        kind, target = self.asked.pop(number)
        chosen = outcome.get("optionId")
        if chosen in ("opt-yes", "opt-always"):
            if kind == "execute":
                ended = subprocess.run(["sh", "-c", target], capture_output=True, text=True)
                say(f"ran {target}: {ended.stdout.strip()}")
            else:
                with open(target, "w", encoding="utf-8") as file:
                    file.write("written\n")
                say(f"wrote {target}")
        else:
            say(f"left {target}: {chosen or outcome.get('outcome')}")
        self.go_on()

    def take(self, message):
        method, number, params = message.get("method"), message.get("id"), message.get("params") or {}
        if method == "initialize":
            send({"id": number, "result": {"protocolVersion": 1, "agentCapabilities": {},
                                            "agentInfo": {"name": "acp_agent", "version": "1.0.0"}, "authMethods": []}})
        elif method == "session/new":
            send({"id": number, "result": {"sessionId": SESSION}})
        elif method == "session/prompt":
            text = "".join(part.get("text", "") for part in params["prompt"])
            self.prompt, self.todo = number, text.splitlines()
            self.go_on()
        elif method == "session/cancel":
            self.todo = []
            self.asked = {}
            if self.prompt is not None:
                send({"id": self.prompt, "result": {"stopReason": "cancelled"}})
                self.prompt = None
        elif method is None and number in self.asked and "result" in message:
            self.answered(number, message["result"]["outcome"])
        elif method is not None and number is not None:
            send({"id": number, "error": {"code": -32601, "message": "unknown method"}})


def main():
    agent = Agent()
    for line in sys.stdin:
        agent.take(json.loads(line))


main()
