"""Reads deliveries as an application on pywa does. A line in: the signature, a blank, the body in hex. A line out: what pywa made of it."""

import json
import sys

from pywa import WhatsApp, types, utils

secret = sys.argv[1]
client = WhatsApp(phone_id="1", token="t", server=None)
for line in sys.stdin:
    signature, body = line.split()
    body = bytes.fromhex(body)
    if not utils.webhook_updates_validator(secret, body, signature):
        sys.exit("pywa does not believe the signature")
    seen = []
    for entry in json.loads(body)["entry"]:
        for change in entry["changes"]:
            single = {"object": "whatsapp_business_account", "entry": [{**entry, "changes": [change]}]}
            value = change["value"]
            if "messages" in value:
                read = types.Message.from_update(client, single)
                seen.append({"id": read.id, "what": str(read.type.value), "text": read.text})
            elif "statuses" in value:
                read = types.MessageStatus.from_update(client, single)
                seen.append({"id": read.id, "what": str(read.status.value), "tracker": read.tracker})
    print(json.dumps(seen))
