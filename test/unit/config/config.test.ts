import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Config, type ConfigInput, loadConfig } from '../../../node/config.ts';
import { SETTINGS } from '../../../node/config-settings.ts';
import { nearestName } from '../../../node/config-text.ts';
import fc from '../../support/fc.ts';

const dir = mkdtempSync(join(tmpdir(), 'meshnode-config-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const KEY = { 'api-key-file': ['/etc/key'] };

function load(input: { flags?: ConfigInput['flags']; env?: ConfigInput['env']; file?: unknown }): Config {
  return loadAll(input).config;
}

function loadAll(input: { flags?: ConfigInput['flags']; env?: ConfigInput['env']; file?: unknown }) {
  const path = join(dir, 'config.json');
  if (input.file !== undefined) {
    writeFileSync(path, typeof input.file === 'string' ? input.file : JSON.stringify(input.file));
  }
  const named = input.file === undefined ? {} : { config: [path] };
  return loadConfig({
    flags: { ...named, ...input.flags },
    env: input.env ?? {},
    cwd: '/there',
    home: '/home/ada',
    hostName: 'attic',
  });
}

const message = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'invalid_request');
    const text = (error as Error).message;
    assert.equal(text.includes('\n'), false, 'one line');
    return text;
  }
  throw new assert.AssertionError({ message: 'expected an error' });
};

test('defaults are those of the table in the design', () => {
  const config = load({});
  assert.deepEqual(config, {
    name: 'attic',
    dataDir: '/home/ada/.local/share/meshnode',
    facade: { host: '127.0.0.1', port: 8642, apiKeyFile: null, allowHosts: [], allowOrigins: [] },
    network: { listen: ['/ip4/0.0.0.0/tcp/8643', '/ip6/::/tcp/8643'], peers: [], mdns: true, dht: true },
    engine: { gpu: 'auto', contextTokens: null, parallel: 4, keepAliveMs: 300_000, memoryBytes: null },
    models: { files: [], dir: '/home/ada/.local/share/meshnode/models', pin: [], aliases: {} },
    loadBalancing: { enabled: true, strategy: 'least-loaded', failoverEnabled: true, midStream: true },
    federation: { prefer: 'queued', groups: null, maintenance: [], requestsPerSecond: 10 },
    streaming: { publicUrl: null, secretFile: null },
    secrets: { store: 'auto', passphraseFile: null },
    upstreams: [],
    log: { format: 'pretty', level: 'warn' },
  });
});

test('a flag beats the environment, which beats the file, which beats the default', () => {
  const file = { facade: { port: 1 } };
  const env = { MESHNODE_PORT: '2' };
  const flags = { port: ['3'] };
  assert.equal(load({ file, env, flags }).facade.port, 3);
  assert.equal(load({ file, env }).facade.port, 2);
  assert.equal(load({ file }).facade.port, 1);
  assert.equal(load({}).facade.port, 8642);
  const { origins } = loadAll({ file: { name: 'x', facade: { port: 1 } }, env, flags: { context: ['64'] } });
  assert.equal(origins['engine.contextTokens'], 'flag');
  assert.equal(origins['facade.port'], 'env');
  assert.equal(origins['name'], 'file');
  assert.equal(origins['engine.gpu'], 'default');
});

test('every setting can be given by flag, environment and file, and each source gives the same config', () => {
  const texts: Record<string, string> = {
    name: 'n',
    'data-dir': '/d',
    host: '::1',
    port: '0',
    'api-key-file': '/k',
    'allow-host': 'a.local',
    'allow-origin': 'https://o.example',
    listen: '/ip4/127.0.0.1/tcp/0',
    peer: '/dns4/box.local/tcp/8643',
    'no-mdns': 'true',
    'no-dht': 'true',
    'no-load-balancing': 'true',
    strategy: 'fastest',
    'no-failover': 'true',
    'no-mid-stream': 'true',
    gpu: 'off',
    context: '4096',
    parallel: '2',
    'keep-alive': '10m',
    memory: '8GiB',
    pin: 'id',
    aliases: '{"name":["id","other"]}',
    model: 'id=/m.gguf',
    'models-dir': '/ms',
    'federation-prefer': 'free',
    'federation-group': 'staff',
    'federation-maintenance': 'sophia',
    'federation-rate': '0',
    'streaming-url': 'https://node.example',
    'streaming-secret-file': '/s',
    'secrets-store': 'plain',
    'passphrase-file': '/p',
    'log-format': 'json',
    'log-level': 'debug',
  };
  const visible = SETTINGS.filter((setting) => setting.key !== 'upstreams');
  assert.deepEqual(visible.map((setting) => setting.flag).toSorted(), Object.keys(texts).toSorted());
  const file: Record<string, unknown> = {};
  for (const { key, flag, kind } of visible) {
    const text = texts[flag] ?? '';
    const value =
      kind === 'json'
        ? JSON.parse(text)
        : kind === 'integer'
          ? Number(text)
          : kind === 'switch'
            ? false
            : kind === 'list'
              ? [text]
              : text;
    const [section = '', name] = key.split('.');
    if (name === undefined) file[section] = value;
    else file[section] = { ...(file[section] as object | undefined), [name]: value };
  }
  const byFlag = load({ flags: Object.fromEntries(Object.entries(texts).map(([flag, text]) => [flag, [text]])) });
  const byEnv = load({ env: Object.fromEntries(visible.map((setting) => [setting.env, texts[setting.flag] ?? ''])) });
  assert.deepEqual(byEnv, byFlag);
  assert.deepEqual(load({ file }), byFlag);
  assert.equal(byFlag.network.mdns, false);
  assert.deepEqual(byFlag.models.files, [{ id: 'id', path: '/m.gguf' }]);
});

test('durations and sizes are read as people write them', () => {
  const keepAlive = (text: string) => load({ flags: { 'keep-alive': [text] } }).engine.keepAliveMs;
  assert.deepEqual(
    ['0', '45', '30s', '10m', '1.5h', '1d', '250ms'].map(keepAlive),
    [0, 45_000, 30_000, 600_000, 5_400_000, 86_400_000, 250],
  );
  assert.deepEqual(['-1', 'forever'].map(keepAlive), [null, null]);
  const memory = (text: string) => load({ flags: { memory: [text] } }).engine.memoryBytes;
  assert.deepEqual(['1000', '1k', '512MiB', '8GB', '8g', '1.5 GiB', '2TiB'].map(memory), [
    1000,
    1024,
    2 ** 29,
    2 ** 33,
    2 ** 33,
    1.5 * 2 ** 30,
    2 ** 41,
  ]);
});

test('the result is frozen to its leaves', () => {
  const config = load({ flags: { peer: ['/ip4/10.0.0.1/tcp/1'] } });
  assert.throws(() => Object.assign(config, { name: 'x' }), TypeError);
  assert.throws(() => Object.assign(config.facade, { port: 1 }), TypeError);
  assert.throws(() => (config.network.peers as string[]).push('x'), TypeError);
});

test('relative paths belong to the working directory, those of the file to the file, ~ to the home directory', () => {
  assert.equal(load({ flags: { 'data-dir': ['d'] } }).dataDir, '/there/d');
  assert.equal(load({ env: { MESHNODE_DATA_DIR: '~/d' } }).dataDir, '/home/ada/d');
  assert.equal(load({ file: { dataDir: 'd' } }).dataDir, join(dir, 'd'));
  assert.deepEqual(load({ flags: { model: ['m.gguf', './a=b.gguf', 'x=m.gguf'] } }).models.files, [
    { id: null, path: '/there/m.gguf' },
    { id: null, path: '/there/a=b.gguf' },
    { id: 'x', path: '/there/m.gguf' },
  ]);
  assert.equal(load({ env: { XDG_DATA_HOME: '/data' } }).dataDir, '/data/meshnode');
});

test('every bad value is one line that names the flag, the value and what is expected', () => {
  const rows: readonly (readonly [string, string, RegExp])[] = [
    ['port', 'abc', /^--port is "abc": expected a whole number from 0 to 65535$/],
    ['port', '65536', /^--port is 65536: expected/],
    ['port', '-1', /^--port is -1/],
    ['port', '1.5', /^--port is "1\.5"/],
    ['host', 'example.com', /^--host is "example\.com": expected an IP address or localhost/],
    ['name', 'x'.repeat(65), /^--name is "x+": expected 1 to 64 characters/],
    ['name', 'a\u001b[2J', /^--name is "a\?\[2J"/],
    ['listen', '127.0.0.1:80', /^--listen is "127\.0\.0\.1:80": expected a multiaddr such as/],
    ['listen', '/ip4/300.0.0.1/tcp/1', /^--listen/],
    ['listen', '/ip6/127.0.0.1/tcp/1', /^--listen/],
    ['listen', '/ip4/0.0.0.0/tcp/70000', /^--listen/],
    ['peer', '/ip4/1.2.3.4/tcp/0', /^--peer is/],
    ['peer', '/ip4/1.2.3.4/udp/5', /^--peer is/],
    ['model', '=x.gguf', /^--model is "=x\.gguf": expected PATH or ID=PATH/],
    ['model', 'id=', /^--model is "id="/],
    ['model', 'bad*id=x.gguf', /^--model is/],
    ['upstream', 'vllm', /^--upstream is "vllm": expected NAME=URL/],
    ['upstream', 'v=ftp://x', /^--upstream is/],
    ['upstream', 'v=http://169.254.169.254', /^--upstream: v: 169\.254\.169\.254 is a link-local, multicast or meta/],
    ['allow-origin', 'https://x/', /^--allow-origin is "https:\/\/x\/": expected an origin/],
    ['allow-origin', '*', /^--allow-origin is/],
    ['allow-host', 'http://x', /^--allow-host is/],
    ['strategy', 'random', /^--strategy is "random": expected priority, round-robin, least-loaded, fastest$/],
    ['gpu', 'rocm', /^--gpu is "rocm": expected auto, off, cuda, vulkan or metal/],
    ['context', '10', /^--context is 10: expected/],
    ['parallel', '0', /^--parallel is 0: expected/],
    ['keep-alive', 'soon', /^--keep-alive is "soon": expected a duration such as 30s, 10m or 2h, 0, or forever$/],
    ['keep-alive', '-2', /^--keep-alive is/],
    ['keep-alive', '30d', /^--keep-alive is/],
    ['memory', 'lots', /^--memory is "lots": expected a size such as 8GiB/],
    ['memory', '0', /^--memory is/],
    ['pin', '../x', /^--pin is "\.\.\/x": expected a model id/],
    ['log-format', 'xml', /^--log-format is "xml": expected pretty or json/],
    ['log-level', 'loud', /^--log-level is "loud": expected fatal, error/],
  ];
  for (const [flag, value, expected] of rows) {
    assert.match(
      message(() => load({ flags: { ...KEY, [flag]: [value] } })),
      expected,
    );
    const variable = `MESHNODE_${flag.toUpperCase().replaceAll('-', '_')}`;
    assert.match(
      message(() => load({ env: { [variable]: value } })),
      new RegExp(`^${variable}`),
    );
  }
  assert.match(
    message(() => load({ env: { MESHNODE_NO_MDNS: 'maybe' } })),
    /^MESHNODE_NO_MDNS is "maybe": expected 1 or 0$/,
  );
});

test('a bad value in the file names its key', () => {
  assert.match(
    message(() => load({ file: { facade: { port: '80' } } })),
    /^facade\.port is "80": expected a whole number/,
  );
  assert.match(
    message(() => load({ file: { network: { peers: 'x' } } })),
    /^network\.peers is "x": expected a list, each/,
  );
  assert.match(
    message(() => load({ file: { network: { mdns: 'no' } } })),
    /^network\.mdns is "no": expected true or false/,
  );
  assert.match(
    message(() => load({ file: { network: [] } })),
    /network is \[\]: expected an object/,
  );
});

test('unknown keys and variables are refused with the nearest known name', () => {
  assert.match(
    message(() => load({ file: { facade: { prot: 1 } } })),
    /unknown key facade\.prot; did you mean facade\.port\?/,
  );
  assert.match(
    message(() => load({ file: { port: 1 } })),
    /unknown key port; did you mean facade\.port\?/,
  );
  assert.match(
    message(() => load({ file: { zzzzzzzzzzz: 1 } })),
    /unknown key zzzzzzzzzzz$/,
  );
  assert.match(
    message(() => load({ file: JSON.parse('{"__proto__":{"x":1}}') as object })),
    /unknown key __proto__/,
  );
  assert.match(
    message(() => load({ env: { MESHNODE_PROT: '1' } })),
    /^MESHNODE_PROT: no such setting; did you mean MESHNODE_PORT\?/,
  );
});

test('a config file that is named must exist and hold one JSON object', () => {
  assert.match(
    message(() => load({ flags: { config: ['/nowhere.json'] } })),
    /^\/nowhere\.json: there is no such file; check --config/,
  );
  assert.match(
    message(() => load({ env: { MESHNODE_CONFIG: '/nowhere.json' } })),
    /^\/nowhere\.json/,
  );
  assert.match(
    message(() => load({ file: '{"a":' })),
    /config\.json: not valid JSON/,
  );
  assert.match(
    message(() => load({ file: '[]' })),
    /expected one JSON object/,
  );
});

test('N-11 a host that others can reach demands a key file', () => {
  assert.match(
    message(() => load({ flags: { host: ['0.0.0.0'] } })),
    /^--host is 0\.0\.0\.0, .* needs --api-key-file FILE/,
  );
  assert.match(
    message(() => load({ env: { MESHNODE_HOST: '192.168.1.2' } })),
    /^MESHNODE_HOST is/,
  );
  assert.equal(load({ flags: { host: ['0.0.0.0'], ...KEY } }).facade.apiKeyFile, '/etc/key');
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost'])
    assert.equal(load({ flags: { host: [host] } }).facade.host, host);
});

test('repeated flags and comma-separated variables make lists; of single values the last wins', () => {
  const two = ['/ip4/10.0.0.1/tcp/1', '/ip4/10.0.0.2/tcp/2'];
  assert.deepEqual(load({ flags: { peer: two } }).network.peers, two);
  assert.deepEqual(load({ env: { MESHNODE_PEER: two.join(',') } }).network.peers, two);
  assert.equal(load({ flags: { port: ['1', '2'] } }).facade.port, 2);
  assert.equal(load({ env: { MESHNODE_PORT: '' } }).facade.port, 8642);
});

test('the example file is valid', () => {
  const example: unknown = JSON.parse(readFileSync(new URL('../../../config.example.json', import.meta.url), 'utf8'));
  assert.equal(load({ file: example }).name, 'attic');
});

test('the nearest name is found through up to two typing slips', () => {
  const names = SETTINGS.map((setting) => setting.flag);
  fc.assert(
    fc.property(fc.constantFrom(...names.filter((name) => name.length >= 6)), fc.nat(), (name, at) => {
      const position = at % (name.length - 1);
      const swapped = name.slice(0, position) + name[position + 1] + name[position] + name.slice(position + 2);
      assert.notEqual(nearestName(swapped, names), null);
    }),
  );
  assert.equal(nearestName('completely-different', names), null);
});
