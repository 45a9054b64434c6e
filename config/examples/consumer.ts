// Reads mail from Mailrace's stream, at least once, and commits what it has dealt with.
//
//     npx tsc --module nodenext --target es2022 consumer.ts && node consumer.js URL GROUP [COUNT]
//
// Node 18 or later, no packages. A record may come twice (after a crash, or a commit that was
// lost): its `id` never changes, so keep it with what you store.

interface MailEvent {
  id: string;
  data: {
    log: { node: string; shard: number; offset: number };
    envelope: { mail_from: string; rcpt_to: string[] };
    subject: string | null;
    size: number;
    raw: { encoding: "base64"; data: string } | { ref: string; size: number };
  };
}

const [, , url = "http://127.0.0.1:2580", group = "example", limit] = process.argv;
const commitEvery = 100;

/** Put your own work here. It must be durable once the promise is resolved. */
async function handle(event: MailEvent): Promise<void> {
  const raw = event.data.raw;
  const mail =
    "ref" in raw
      ? Buffer.from(await (await fetch(raw.ref)).arrayBuffer())
      : Buffer.from(raw.data, "base64");
  const { mail_from, rcpt_to } = event.data.envelope;
  console.log(event.id, mail.length, mail_from, rcpt_to.join(","), event.data.subject);
}

/** Names the next offset wanted, by shard. */
async function commit(offsets: Record<string, number>): Promise<void> {
  const answer = await fetch(`${url}/v1/groups/${group}/commit`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(offsets),
  });
  if (!answer.ok) throw new Error(`commit: ${answer.status} ${await answer.text()}`);
}

/** The lines of a body, as they come. */
async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}

/** Reads until the stream ends, or `count` records are committed; says how many those were. */
async function consume(count: number): Promise<number> {
  const offsets: Record<string, number> = {};
  let handled = 0;
  const inflight = 10 * commitEvery;
  const stop = new AbortController();
  const answer = await fetch(
    `${url}/v1/stream?group=${group}&follow=1&max_inflight=${inflight}`,
    { signal: stop.signal },
  );
  if (!answer.ok || !answer.body) throw new Error(`${answer.status} ${await answer.text()}`);
  for await (const line of lines(answer.body as ReadableStream<Uint8Array>)) {
    const event = JSON.parse(line) as MailEvent;
    await handle(event);
    offsets[event.data.log.shard] = event.data.log.offset + 1;
    handled += 1;
    if (handled % commitEvery === 0 || handled === count) await commit(offsets);
    if (handled === count) break;
  }
  stop.abort();
  return handled;
}

export {}; // a module: it may await at its top level

let left = limit === undefined ? Infinity : Number(limit);
let wait = 500;
while (left > 0) {
  try {
    left -= await consume(left);
    wait = 500;
  } catch (error) {
    console.error(`again in ${wait} ms: ${String(error)}`);
  }
  if (left > 0) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 30_000);
  }
}
