// node client.mjs ENDPOINT STANDARD FIFO: the AWS SDK for JavaScript v3 at work; any failed assertion ends it.
// The SDK itself compares the MD5s of what it sent and received, and sends queue operations to the QueueUrl's host.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as sqs from "@aws-sdk/client-sqs";

const [endpoint, standard, fifo] = process.argv.slice(2);
const client = new sqs.SQSClient({ endpoint, region: "us-east-1" });
let calls = 0;
const call = (name, parameters) => {
  calls += 1;
  return client.send(new sqs[`${name}Command`](parameters));
};

const attributes = {
  text: { DataType: "String", StringValue: "é" },
  bytes: { DataType: "Binary", BinaryValue: Uint8Array.from({ length: 256 }, (_, number) => number) },
};

async function messages(QueueUrl) {
  const MessageBody = 'é <x> & "quoted" \r\n\t 😀';
  const sent = await call("SendMessage", { QueueUrl, MessageBody, MessageAttributes: attributes });
  const answer = await call("ReceiveMessage", {
    QueueUrl,
    WaitTimeSeconds: 20,
    MessageAttributeNames: ["All"],
    MessageSystemAttributeNames: ["All"],
  });
  assert.equal(answer.Messages.length, 1);
  const [message] = answer.Messages;
  assert.equal(message.Body, MessageBody);
  assert.equal(message.MessageId, sent.MessageId);
  assert.equal(message.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  assert.deepEqual([...message.MessageAttributes.bytes.BinaryValue], [...attributes.bytes.BinaryValue]);
  assert.equal(message.Attributes.ApproximateReceiveCount, "1");
  const handle = { QueueUrl, ReceiptHandle: message.ReceiptHandle };
  await call("ChangeMessageVisibility", { ...handle, VisibilityTimeout: 60 });
  await call("DeleteMessage", handle);
}

async function batches(QueueUrl) {
  const Entries = Array.from({ length: 10 }, (_, number) => ({ Id: `${number}`, MessageBody: `${number}` }));
  assert.equal((await call("SendMessageBatch", { QueueUrl, Entries })).Successful.length, 10);
  const found = new Map();
  while (found.size < 10) {
    const answer = await call("ReceiveMessage", { QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 20 });
    for (const message of answer.Messages) found.set(message.Body, message.ReceiptHandle);
  }
  const handles = [...found].map(([Id, ReceiptHandle]) => ({ Id, ReceiptHandle }));
  const visible = handles.map((entry) => ({ ...entry, VisibilityTimeout: 60 }));
  assert.equal((await call("ChangeMessageVisibilityBatch", { QueueUrl, Entries: visible })).Successful.length, 10);
  handles[0].ReceiptHandle = "wrong";
  const deleted = await call("DeleteMessageBatch", { QueueUrl, Entries: handles });
  assert.equal(deleted.Successful.length, 9);
  assert.equal(deleted.Failed[0].Code, "ReceiptHandleIsInvalid");
  assert.equal(deleted.Failed[0].SenderFault, true);
  await call("PurgeQueue", { QueueUrl });
}

async function queues(url) {
  const QueueName = `${standard}-mine`;
  const Attributes = { VisibilityTimeout: "45" };
  const { QueueUrl } = await call("CreateQueue", { QueueName, Attributes, tags: { team: "a" } });
  await call("SetQueueAttributes", { QueueUrl, Attributes: { DelaySeconds: "1" } });
  const held = (await call("GetQueueAttributes", { QueueUrl, AttributeNames: ["All"] })).Attributes;
  assert.deepEqual([held.VisibilityTimeout, held.DelaySeconds], ["45", "1"]);
  await call("TagQueue", { QueueUrl, Tags: { cost: "b" } });
  await call("UntagQueue", { QueueUrl, TagKeys: ["team"] });
  assert.deepEqual((await call("ListQueueTags", { QueueUrl })).Tags, { cost: "b" });
  const listed = [];
  const pages = sqs.paginateListQueues({ client, pageSize: 1 }, { QueueNamePrefix: standard });
  for await (const page of pages) listed.push(...(page.QueueUrls ?? []));
  assert.ok(listed.includes(QueueUrl) && listed.includes(url));
  await call("DeleteQueue", { QueueUrl });
  await assert.rejects(call("SendMessage", { QueueUrl, MessageBody: "x" }), sqs.QueueDoesNotExist);
}

async function order(QueueUrl) {
  const message = { QueueUrl, MessageBody: "x", MessageGroupId: "g", MessageDeduplicationId: "d" };
  const [first, again] = [await call("SendMessage", message), await call("SendMessage", message)];
  assert.equal(first.SequenceNumber, again.SequenceNumber);
  const answer = await call("ReceiveMessage", { QueueUrl, WaitTimeSeconds: 20, AttributeNames: ["SequenceNumber"] });
  assert.deepEqual(answer.Messages.map((each) => each.Attributes), [{ SequenceNumber: first.SequenceNumber }]);
}

async function errors(QueueUrl) {
  await assert.rejects(call("GetQueueUrl", { QueueName: "none" }), sqs.QueueDoesNotExist);
  await assert.rejects(call("DeleteMessage", { QueueUrl, ReceiptHandle: "wrong" }), sqs.ReceiptHandleIsInvalid);
  await assert.rejects(call("PurgeQueue", { QueueUrl }), sqs.PurgeQueueInProgress);
  const different = { QueueName: standard, Attributes: { DelaySeconds: "7" } };
  await assert.rejects(call("CreateQueue", different), sqs.QueueNameExists);
  const bad = { QueueUrl, Attributes: { DelaySeconds: "x" } };
  await assert.rejects(call("SetQueueAttributes", bad), sqs.InvalidAttributeValue);
}

const { QueueUrl } = await call("GetQueueUrl", { QueueName: standard });
await messages(QueueUrl);
await batches(QueueUrl);
await queues(QueueUrl);
await order((await call("GetQueueUrl", { QueueName: fifo })).QueueUrl);
await errors(QueueUrl);
client.destroy();
const { version } = JSON.parse(readFileSync("node_modules/@aws-sdk/client-sqs/package.json"));
console.log(JSON.stringify({ version, calls }));
