"""botocore's model of SQS turned back to the Query protocol, as botocore had it before 1.31.81."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore

ELEMENTS = {
    "AWSAccountIdList": "AWSAccountId",
    "ActionNameList": "ActionName",
    "AttributeNameList": "AttributeName",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "BinaryList": "BinaryListValue",
    "ChangeMessageVisibilityBatchRequestEntryList": "ChangeMessageVisibilityBatchRequestEntry",
    "ChangeMessageVisibilityBatchResultEntryList": "ChangeMessageVisibilityBatchResultEntry",
    "DeleteMessageBatchRequestEntryList": "DeleteMessageBatchRequestEntry",
    "DeleteMessageBatchResultEntryList": "DeleteMessageBatchResultEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    "MessageAttributeNameList": "MessageAttributeName",
    "MessageList": "Message",
    "MessageSystemAttributeList": "MessageSystemAttributeName",
    "QueueUrlList": "QueueUrl",
    "SendMessageBatchRequestEntryList": "SendMessageBatchRequestEntry",
    "SendMessageBatchResultEntryList": "SendMessageBatchResultEntry",
    "StringList": "StringListValue",
    "TagKeyList": "TagKey",
}
MAPS = {
    "MessageBodyAttributeMap": ("MessageAttribute", "Name", "Value"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name", "Value"),
    "MessageSystemAttributeMap": ("Attribute", "Name", "Value"),
    "QueueAttributeMap": ("Attribute", "Name", "Value"),
    "TagMap": ("Tag", "Key", "Value"),
}


def write_query_model(folder: Path) -> None:
    """Below ``folder``, in the layout of botocore's data path."""
    source = Path(botocore.__file__).parent / "data/sqs/2012-11-05/service-2.json.gz"
    model: dict[str, Any] = json.loads(gzip.decompress(source.read_bytes()))
    metadata = model["metadata"]
    for name in ("awsQueryCompatible", "jsonVersion", "targetPrefix"):
        del metadata[name]
    metadata |= {
        "protocol": "query",
        "protocols": ["query"],
        "xmlNamespace": "http://queue.amazonaws.com/doc/2012-11-05/",
    }
    for operation in model["operations"].values():
        if "output" in operation:
            operation["output"]["resultWrapper"] = operation["output"]["shape"]
    shapes = model["shapes"]
    for name, element in ELEMENTS.items():
        shapes[name]["member"]["locationName"] = element
        shapes[name]["flattened"] = True
    for name, (_, key, value) in MAPS.items():
        shapes[name]["key"]["locationName"] = key
        shapes[name]["value"]["locationName"] = value
    for shape in shapes.values():
        for member in shape.get("members", {}).values():
            if member["shape"] in MAPS:
                member["locationName"] = MAPS[member["shape"]][0]
            elif member["shape"] in ELEMENTS:
                member["locationName"] = ELEMENTS[member["shape"]]
    shapes["QueueDoesNotExist"]["error"] = {
        "code": "AWS.SimpleQueueService.NonExistentQueue",
        "httpStatusCode": 400,
        "senderFault": True,
    }
    target = folder / "sqs/2012-11-05/service-2.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(model))
