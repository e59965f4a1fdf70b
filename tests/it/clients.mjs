// Reads deliveries as an application on whatsapp-api-js does. A line in: the signature, a blank, the body in hex. A line out: what it
// made of it.
import { createInterface } from "node:readline";
import { WhatsAppAPI } from "whatsapp-api-js";

const client = new WhatsAppAPI({ token: "t", appSecret: process.argv[2], v: "v23.0" });
let seen;
client.on.message = ({ message }) => seen.push({ id: message.id, what: message.type, text: message.text?.body ?? null });
client.on.status = ({ id, status, biz_opaque_callback_data }) =>
    seen.push({ id, what: status, tracker: biz_opaque_callback_data ?? null });
for await (const line of createInterface({ input: process.stdin })) {
    const [signature, hex] = line.split(" ");
    const raw = Buffer.from(hex, "hex").toString();
    seen = [];
    // Throws when it does not believe the signature. It reads the first item of a delivery only.
    await client.post(JSON.parse(raw), raw, signature);
    console.log(JSON.stringify(seen));
}
