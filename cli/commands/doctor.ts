/** `meshnode doctor`: looks for what keeps a node from working, and says what to do about it. */
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Config } from '../../node/config.ts';
import { findModelFiles, findRunningNode, type RunningNode, scanModel } from '../../node/index.ts';
import { type Command, configOf, EXIT } from '../command.ts';
import { reportSecretStore } from '../secret-store-report.ts';
import { clean } from '../terminal.ts';

/** One thing that was looked at. */
interface Finding {
  readonly check: string;
  readonly ok: boolean;
  /** What is so; for a problem, with what to do. */
  readonly detail: string;
}

const good = (check: string, detail: string): Finding => ({ check, ok: true, detail });
const bad = (check: string, detail: string): Finding => ({ check, ok: false, detail });

export const doctor: Command = {
  name: 'doctor',
  positionals: '',
  maxPositionals: 0,
  summary: 'find what keeps a node from working',
  settings: null,
  extra: [],
  async run(invocation) {
    const { config } = configOf(invocation);
    const running = await findRunningNode(config.dataDir);
    const findings = [
      nodeVersion(),
      await dataDir(config),
      await port(config, running),
      good('running node', running === null ? 'none' : `process ${running.pid} at ${running.api}`),
      multicast(config),
      await secrets(config),
      ...(await modelFiles(config)),
    ];
    const healthy = findings.every((finding) => finding.ok);
    if (invocation.json) invocation.terminal.json({ ok: healthy, findings });
    else {
      for (const finding of findings) {
        const mark = finding.ok
          ? invocation.terminal.paint('green', 'ok     ')
          : invocation.terminal.paint('red', 'problem');
        invocation.terminal.line(`${mark}  ${finding.check}: ${clean(finding.detail)}`);
      }
    }
    return healthy ? EXIT.ok : EXIT.failure;
  },
};

function nodeVersion(): Finding {
  // An older Node never gets here: cli/meshnode.js sees to it.
  return good('Node.js', `${process.versions.node} (${process.execPath})`);
}

async function dataDir(config: Config): Promise<Finding> {
  const check = 'data directory';
  try {
    const found = await stat(config.dataDir);
    if (!found.isDirectory()) return bad(check, `${config.dataDir} is no directory: choose another with --data-dir`);
    const loose = process.platform !== 'win32' && (found.mode & 0o022) !== 0;
    return loose
      ? bad(check, `other users may write to ${config.dataDir}: run chmod 700 ${config.dataDir}`)
      : good(check, config.dataDir);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return good(check, `${config.dataDir} (made at the first start)`);
    return bad(check, `${config.dataDir} cannot be used (${code}): choose another with --data-dir`);
  }
}

async function port(config: Config, running: RunningNode | null): Promise<Finding> {
  const { host, port: wanted } = config.facade;
  const check = `port ${wanted}`;
  if (running !== null && new URL(running.api).port === String(wanted)) return good(check, 'used by the running node');
  const code = await tryListen(host, wanted);
  if (code === null) return good(check, `free on ${host}`);
  return code === 'EADDRINUSE'
    ? bad(check, `taken by another program on ${host}: stop that, or start with --port N`)
    : bad(check, `cannot be opened on ${host} (${code}): check --host and --port`);
}

/** Null when the port can be opened, else the system's error code. */
function tryListen(host: string, wanted: number): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'));
    server.listen({ host, port: wanted, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

function multicast(config: Config): Finding {
  const check = 'discovery';
  if (!config.network.mdns) return good(check, `mDNS is off; ${config.network.peers.length} --peer addresses`);
  const addresses = Object.entries(networkInterfaces()).flatMap(([name, list]) =>
    (list ?? []).filter((each) => !each.internal && each.family === 'IPv4').map((each) => `${name} ${each.address}`),
  );
  if (addresses.length > 0) return good(check, `mDNS on ${addresses.join(', ')}`);
  return bad(check, 'no network interface with an IPv4 address, which mDNS needs: connect one, or use --peer');
}

async function secrets(config: Config): Promise<Finding> {
  const { ok, detail } = await reportSecretStore(config);
  return { check: 'keys of other nodes', ok, detail };
}

async function modelFiles(config: Config): Promise<readonly Finding[]> {
  const { files } = await findModelFiles(config.models.dir);
  const inDir = files
    .filter((path) => !/-(?!00001)\d{5}-of-\d{5}\.gguf$/i.test(path))
    .map((path) => ({ id: null, path }));
  const findings: Finding[] = [];
  for (const file of [...config.models.files, ...inDir]) {
    try {
      const { id, header } = await scanModel(file);
      findings.push(good('model', `${id} (${header.architecture}, ${header.quantization ?? 'unknown quantization'})`));
    } catch (error) {
      findings.push(bad('model', `${error instanceof Error ? error.message : String(error)}: get the file again`));
    }
  }
  return findings.length > 0
    ? findings
    : [good('model', `none of your own in ${config.models.dir}: the demo model is served`)];
}
