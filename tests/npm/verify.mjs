// Verifies what relay signed with the libraries that receivers use.
// In: a JSON list of {scheme, secret, headers, body} on standard input; out: a JSON list of booleans.

import { createPublicKey, verify as verifyRaw } from "node:crypto";
import { readFileSync } from "node:fs";

import hygraph from "@hygraph/utils";
import { verify as verifyGithub } from "@octokit/webhooks-methods";

const schemes = {
  github: ({ secret, headers, body }) => verifyGithub(secret, body, headers["x-hub-signature-256"]),

  hygraph: ({ secret, headers, body }) =>
    hygraph.verifyWebhookSignature({ rawPayload: body, signature: headers["gcms-signature"], secret }),

  // No published library knows v1a: this is the specification's text, with Node's own Ed25519.
  // https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
  "standard-asymmetric": ({ secret, headers, body }) => {
    const x = Buffer.from(secret.slice("whpk_".length), "base64").toString("base64url");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
    return headers["webhook-signature"].split(" ").some((one) => {
      const [version, code] = one.split(",");
      return version === "v1a" && verifyRaw(null, signed, key, Buffer.from(code, "base64"));
    });
  },
};

const answers = [];
for (const one of JSON.parse(readFileSync(0, "utf8"))) {
  answers.push(await schemes[one.scheme](one));
}
process.stdout.write(JSON.stringify(answers));
