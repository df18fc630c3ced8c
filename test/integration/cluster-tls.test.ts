/** A cluster behind TLS, as all should be: its certificate counts, and its services must not fall back to the clear. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCli } from '../support/cli-process.ts';
import { ClusterManager, KEYPAIR } from '../support/cluster-manager/manager.ts';
import { temporaryDir } from '../support/node-process.ts';

/** A certificate for 127.0.0.1 that nobody knows; null where no openssl is at hand. */
function selfSigned(dir: string): { readonly key: string; readonly cert: string } | null {
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')];
  const what = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const who = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  try {
    execFileSync('openssl', [...what, ...who, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    return { key, cert };
  } catch {
    return null;
  }
}

/** Hands everything on to the manager, host and all. */
async function tlsFront(context: TestContext, manager: ClusterManager, { key, cert }: { key: string; cert: string }) {
  const server: Server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (asked, answer) => {
    const { method, url, headers } = asked;
    const onward = request(`${manager.url}${url}`, { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode ?? 502, answered.headers);
      answered.pipe(answer);
    });
    asked.pipe(onward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a certificate that nobody vouches for is refused before anything is signed; a good one is enough', async (context) => {
  const home = temporaryDir();
  context.after(() => rm(home, { recursive: true, force: true }));
  const files = selfSigned(home);
  if (files === null) return context.skip('there is no openssl');
  const manager = await ClusterManager.start();
  context.after(() => manager.stop());
  manager.addService('llama-svc', 'big');
  const url = await tlsFront(context, manager, files);
  const run = async (args: readonly string[], env: Record<string, string> = {}) => {
    const options = { home, env: { MESHNODE_SECRETS_STORE: 'plain', ...env }, stdin: KEYPAIR.secretKey };
    const { out } = await runCli(['cluster', ...args, '--json'], options);
    return (JSON.parse(out) as { probe: { status: string; problem: string | null; services: readonly unknown[] } })
      .probe;
  };
  const refused = await run(['add', 'lab', url, '--access-key', KEYPAIR.accessKey, '--secret-stdin']);
  assert.equal(refused.status, 'unreachable');
  assert.match(refused.problem ?? '', /SELF_SIGNED/);
  assert.equal(manager.called.length, 0);
  const taken = await run(['test', 'lab'], { NODE_EXTRA_CA_CERTS: files.cert });
  assert.equal(taken.status, 'connected');
  // The stand-in's services are in the clear.
  assert.match(taken.problem ?? '', /service llama-svc: http:.* has no TLS/);
  assert.deepEqual(taken.services, []);
});
