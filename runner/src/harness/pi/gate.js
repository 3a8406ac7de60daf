// Makes pi ask oqto-runner before each call of a tool, and run none that is not allowed.
//
// The question is a dialog whose title the runner reads: MARK, then JSON. Nothing but the answer "allow" lets a call
// through; a dialog that is cancelled, or cannot be shown, blocks it.

import { readFileSync } from "node:fs";
import { join } from "node:path";

const MARK = "oqto-gate/1 ";

// A longer input is told in part, since it stands in one line and in the session's history. Both in UTF-16 units.
const INPUT_LEN_MAX = 65536;
const TEXT_LEN_MAX = 8192;
const FIELDS_MAX = 32;

function told(input) {
  if (JSON.stringify(input ?? null).length <= INPUT_LEN_MAX) {
    return { input, whole: true };
  }
  const texts = Object.entries(input).filter(([name, value]) => typeof value === "string" && name.length <= 64);
  const short = texts.slice(0, FIELDS_MAX).map(([name, value]) => [name, value.slice(0, TEXT_LEN_MAX)]);
  return { input: Object.fromEntries(short), whole: false };
}

// Whether the workspace says with what shell, or behind which command, pi runs one: then what is allowed is not what runs.
// pi reads that where it trusts the workspace; an old one, which knows no trust, always.
function isSteered(ctx) {
  if (ctx.isProjectTrusted?.() === false) {
    return false;
  }
  try {
    const text = readFileSync(join(ctx.cwd, ".pi", "settings.json"), "utf-8");
    const settings = JSON.parse(text.replace(/^\uFEFF/, ""));
    return [settings?.shellPath, settings?.shellCommandPrefix].some((it) => it !== undefined);
  } catch (error) {
    return error.code !== "ENOENT";
  }
}

export default function (pi) {
  // Told in every session that pi opens, before it takes a prompt for it: without, the runner lets none begin.
  pi.on("session_start", (_event, ctx) => {
    ctx.ui.setStatus("oqto-gate", isSteered(ctx) ? "steered" : "asks");
  });
  pi.on("tool_call", async (event, ctx) => {
    const call = { id: event.toolCallId, name: event.toolName, ...told(event.input) };
    const answer = await ctx.ui.select(MARK + JSON.stringify(call), ["allow", "reject"], { signal: ctx.signal });
    if (answer === "allow") {
      return undefined;
    }
    return { block: true, reason: "This call was not allowed and did nothing." };
  });
}
