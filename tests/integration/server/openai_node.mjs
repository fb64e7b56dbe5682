// OpenAI's client for Node, unchanged, against a server that test_openai_node.py has started. Run by `node --test`.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

const require = createRequire(process.env.QUERN_NODE_MODULES + "/");
const OpenAI = require("openai");

const model = process.env.QUERN_MODEL;
const client = new OpenAI({ baseURL: process.env.QUERN_URL + "/v1", apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France? Answer in one sentence." }];

test("models are listed and retrieved", async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  assert.deepEqual(ids, [model]);
  assert.equal((await client.models.retrieve(model)).owned_by, "quern");
});

test("a streamed chat is the same text in pieces", async () => {
  const asked = { model, messages, temperature: 0, max_completion_tokens: 24 };
  const whole = await client.chat.completions.create(asked);
  assert.match(whole.choices[0].message.content, /Paris/);
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  let text = "", chunks = 0, usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
    ++chunks;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  assert.ok(chunks > 5, `${chunks} chunks`);
});

test("the client's own helper puts a stream together", async () => {
  const runner = client.chat.completions.stream({ model, messages, temperature: 0, max_completion_tokens: 24, logprobs: true });
  const final = await runner.finalChatCompletion();
  assert.match(final.choices[0].message.content, /Paris/);
  assert.ok(final.choices[0].logprobs.content.length > 4);
});

test("completions, plain and streamed, agree", async () => {
  const asked = { model, prompt: "The three primary colours are", temperature: 0, max_tokens: 12 };
  const whole = await client.completions.create(asked);
  assert.equal(whole.usage.completion_tokens, 12);
  let text = "";
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) text += chunk.choices[0].text;
  assert.equal(text, whole.choices[0].text);
});

test("an answer is held to a schema", async () => {
  const schema = {
    type: "object", additionalProperties: false, required: ["city", "million_inhabitants"],
    properties: { city: { enum: ["Paris", "Rome"] }, million_inhabitants: { type: "integer", minimum: 0, maximum: 99 } },
  };
  const reply = await client.chat.completions.create({
    model, messages, temperature: 0, max_completion_tokens: 60,
    response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } },
  });
  const answer = JSON.parse(reply.choices[0].message.content);
  assert.ok(["Paris", "Rome"].includes(answer.city));
  assert.ok(Number.isInteger(answer.million_inhabitants));
});

test("a response, whole and streamed, is the chat's answer", async () => {
  const asked = { model, input: messages[0].content, temperature: 0, max_output_tokens: 24 };
  const chat = await client.chat.completions.create({ model, messages, temperature: 0, max_completion_tokens: 24 });
  const whole = await client.responses.create(asked);
  assert.equal(whole.output_text, chat.choices[0].message.content);
  const types = [];
  let text = "";
  for await (const event of await client.responses.create({ ...asked, stream: true })) {
    types.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, whole.output_text);
  assert.equal(types[0], "response.created");
  assert.equal(types.at(-1), `response.${whole.status}`);
  const final = await client.responses.stream({ ...asked, max_output_tokens: 200 }).finalResponse();
  assert.equal(final.status, "completed");
  assert.ok(final.output_text.startsWith(text.trimEnd()));
  assert.ok(final.usage.output_tokens > 4);
});

test("a response calls a function, and its output is the next one's input", async () => {
  const parameters = { type: "object", additionalProperties: false, required: ["unit"], properties: { unit: { enum: ["celsius", "fahrenheit"] } } };
  const asked = { model, temperature: 0, max_output_tokens: 100, tools: [{ type: "function", name: "get_unit", parameters, strict: true }] };
  const input = [{ role: "user", content: "Which unit?" }];
  const runner = client.responses.stream({ ...asked, input, tool_choice: "required", parallel_tool_calls: false });
  const [call] = (await runner.finalResponse()).output;
  assert.equal(call.type, "function_call");
  assert.ok(["celsius", "fahrenheit"].includes(JSON.parse(call.arguments).unit));
  const next = await client.responses.create({
    ...asked, input: [...input, call, { type: "function_call_output", call_id: call.call_id, output: "done" }],
  });
  assert.ok(next.output.length > 0);
});

test("embeddings are the same as floats and as the client's own base64", async () => {
  const input = ["The sea is blue.", "The sky is blue.", "The sea is blue."];
  const reply = await client.embeddings.create({ model, input });
  assert.deepEqual(reply.data.map((one) => one.index), [0, 1, 2]);
  const [sea, sky, again] = reply.data.map((one) => Array.from(one.embedding));
  const times = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  assert.ok(sea.length > 100 && Math.abs(times(sea, sea) - 1) < 1e-4, `${sea.length} numbers`);
  assert.ok(times(sea, again) > 0.999 && times(sea, sky) < times(sea, again));
  const floats = await client.embeddings.create({ model, input: input[0], encoding_format: "float" });
  assert.ok(times(floats.data[0].embedding, sea) > 0.999);
  const ids = await client.embeddings.create({ model, input: [[504, 3786], [504]], dimensions: sea.length });
  assert.equal(ids.usage.prompt_tokens, 3);
  assert.ok(reply.usage.total_tokens >= 9);
  await assert.rejects(client.embeddings.create({ model, input, dimensions: 7 }), (error) => error.param === "dimensions");
});

test("errors are the client's own classes and say what is wrong", async () => {
  await assert.rejects(client.chat.completions.create({ model: "another", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: 9 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});

test("an aborted stream ends, and the server goes on", async () => {
  const stream = await client.completions.create({ model, prompt: "Once", max_tokens: 1000, ignore_eos: true, stream: true });
  let chunks = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.choices.length === 1);
    if (++chunks === 3) break;
  }
  assert.ok(stream.controller.signal.aborted);
  assert.equal((await client.completions.create({ model, prompt: "Once", max_tokens: 1 })).usage.completion_tokens, 1);
});
