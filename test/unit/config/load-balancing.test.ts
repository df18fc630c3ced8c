import assert from 'node:assert/strict';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { type ConfigInput, loadConfig } from '../../../node/config.ts';
import { editConfig } from '../../../node/config-edit.ts';
import { ConfigWatch, configSource } from '../../../node/config-watch.ts';
import type { LoadBalancing } from '../../../node/routing/settings.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-lb-'));
after(() => rmSync(root, { recursive: true, force: true }));

const newFile = (content?: object | string): string => {
  const path = join(mkdtempSync(join(root, 'at-')), 'config.json');
  if (content !== undefined) writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
};
const inputOf = (path: string, over: Partial<ConfigInput> = {}): ConfigInput => ({
  flags: {},
  env: { MESHNODE_CONFIG: path, ...over.env },
  cwd: '/there',
  home: '/home/ada',
  hostName: 'attic',
  ...(over.flags && { flags: over.flags }),
});
const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
const DEFAULT: LoadBalancing = { enabled: true, strategy: 'least-loaded', failoverEnabled: true, midStream: true };

describe('the keys loadBalancing.* of the configuration', () => {
  test('D-1 D-2 D-23 load balancing and failover are on unless they are turned off by flag, variable or file', () => {
    const path = newFile({});
    assert.deepEqual(loadConfig(inputOf(path)).config.loadBalancing, DEFAULT);
    const off = { enabled: false, strategy: 'priority', failoverEnabled: false, midStream: false };
    const on = ['true'];
    const flags = { 'no-load-balancing': on, 'no-failover': on, 'no-mid-stream': on, strategy: ['priority'] };
    assert.deepEqual(loadConfig(inputOf(path, { flags })).config.loadBalancing, off);
    const no = { MESHNODE_NO_LOAD_BALANCING: '1', MESHNODE_NO_FAILOVER: 'yes', MESHNODE_NO_MID_STREAM: 'on' };
    const env = { ...no, MESHNODE_STRATEGY: 'priority' };
    assert.deepEqual(loadConfig(inputOf(path, { env })).config.loadBalancing, off);
    const { midStream, ...loadBalancing } = off;
    const file = newFile({ loadBalancing, failover: { midStream } });
    assert.deepEqual(loadConfig(inputOf(file)).config.loadBalancing, off);
  });

  test('D-10 a strategy is one of the four names, and nothing else', () => {
    for (const strategy of ['priority', 'round-robin', 'least-loaded', 'fastest'])
      assert.equal(
        loadConfig(inputOf(newFile({ loadBalancing: { strategy } }))).config.loadBalancing.strategy,
        strategy,
      );
    assert.throws(
      () => loadConfig(inputOf(newFile({ loadBalancing: { strategy: 'Priority' } }))),
      /loadBalancing\.strategy is "Priority": expected priority, round-robin, least-loaded, fastest$/,
    );
  });
});

describe('an edit of the config file', () => {
  test('D-15 changes one key and keeps the others, the mode and the link', () => {
    const path = newFile({ name: 'filed', facade: { port: 1 } });
    chmodSync(path, 0o640);
    const link = join(root, 'link.json');
    symlinkSync(path, link);
    const [edit] = editConfig(inputOf(link), { 'loadBalancing.strategy': 'fastest' });
    assert.deepEqual(edit, {
      key: 'loadBalancing.strategy',
      value: 'fastest',
      path: link,
      live: true,
      overriddenBy: null,
    });
    assert.deepEqual(json(path), { name: 'filed', facade: { port: 1 }, loadBalancing: { strategy: 'fastest' } });
    assert.equal(statSync(path).mode & 0o777, 0o640);
    assert.ok(lstatSync(link).isSymbolicLink());
  });

  test('makes the file where there is none, and null takes a key out', () => {
    const path = newFile();
    editConfig(inputOf(path), { 'network.mdns': 'false', 'network.peers': '/ip4/10.0.0.1/tcp/1,/ip4/10.0.0.2/tcp/2' });
    assert.deepEqual(json(path), { network: { peers: ['/ip4/10.0.0.1/tcp/1', '/ip4/10.0.0.2/tcp/2'], mdns: false } });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    editConfig(inputOf(path), { 'network.peers': null });
    assert.deepEqual(json(path), { network: { mdns: false } });
  });

  test('writes paths as the working directory of whoever edits means them', () => {
    const path = newFile({});
    editConfig(inputOf(path), { 'models.dir': 'gguf' });
    assert.deepEqual(json(path), { models: { dir: '/there/gguf' } });
  });

  test('says which variable wins over what was written', () => {
    const path = newFile({});
    const [edit] = editConfig(inputOf(path, { env: { MESHNODE_STRATEGY: 'priority' } }), {
      'loadBalancing.strategy': 'fastest',
    });
    assert.equal(edit?.overriddenBy, 'MESHNODE_STRATEGY');
  });

  test('leaves the file untouched when key, value, result or file is not valid', () => {
    const rows: readonly (readonly [string, string, RegExp])[] = [
      ['loadBalancing.strategy', 'random', /^loadBalancing\.strategy is "random": expected priority/],
      ['loadBalancing.enabled', 'maybe', /^loadBalancing\.enabled is "maybe": expected true or false/],
      ['loadBalancing.stategy', 'fastest', /did you mean loadBalancing\.strategy\?/],
      ['strategy', 'fastest', /did you mean loadBalancing\.strategy\?/],
      ['facade.port', '99999', /^facade\.port is 99999/],
      ['facade.host', '0.0.0.0', /needs --api-key-file/],
      ['__proto__', 'x', /there is no setting __proto__/],
      ['upstreams', 'v=http://x', /there is no setting upstreams/],
    ];
    for (const [key, text, expected] of rows) {
      const path = newFile({ name: 'same' });
      assert.throws(() => editConfig(inputOf(path), { 'loadBalancing.failoverEnabled': 'false', [key]: text }), {
        message: expected,
      });
      assert.deepEqual(json(path), { name: 'same' });
    }
    const broken = newFile('{"a":');
    assert.throws(() => editConfig(inputOf(broken), { name: 'x' }), /not valid JSON/);
    assert.equal(readFileSync(broken, 'utf8'), '{"a":');
  });
});

describe('a running node', () => {
  interface Watched extends Disposable {
    readonly watch: ConfigWatch;
    readonly path: string;
    readonly warnings: string[];
    readonly seen: LoadBalancing[];
    readonly clock: ManualClock;
  }

  function watching(path: string, over: Partial<ConfigInput> = {}): Watched {
    const [warnings, seen]: [string[], LoadBalancing[]] = [[], []];
    const source = configSource(inputOf(path, over));
    const clock = new ManualClock();
    const components = { clock, source, warn: (message: string) => void warnings.push(message) };
    const watch = new ConfigWatch(components, source.load().config.loadBalancing);
    watch.onChange((now) => seen.push(now));
    watch.start();
    return { watch, path, warnings, seen, clock, [Symbol.dispose]: () => watch.stop() };
  }

  test('D-15 follows its config file without a restart', () => {
    const home = mkdtempSync(join(root, 'home-'));
    mkdirSync(join(home, 'meshnode'));
    const path = join(home, 'meshnode/config.json');
    using node = watching(path, { env: { MESHNODE_CONFIG: '', XDG_CONFIG_HOME: home } });
    writeFileSync(node.path, '{"loadBalancing":{"strategy":"fastest","failoverEnabled":false}}');
    node.clock.advance(1_000);
    assert.deepEqual(node.watch.loadBalancing(), {
      enabled: true,
      strategy: 'fastest',
      failoverEnabled: false,
      midStream: true,
    });
    rmSync(node.path);
    node.clock.advance(1_000);
    assert.deepEqual(node.watch.loadBalancing(), DEFAULT);
    assert.equal(node.seen.length, 2);
  });

  test('D-15 keeps what it had when the file is bad, says so once, and takes the next good one', () => {
    using node = watching(newFile({ loadBalancing: { strategy: 'priority' } }));
    for (const bad of ['{', '{"loadBalancing":{"strategy":"random"}}']) {
      writeFileSync(node.path, bad);
      node.clock.advance(3_000);
      assert.equal(node.watch.loadBalancing().strategy, 'priority');
    }
    assert.equal(node.warnings.length, 2);
    assert.match(node.warnings[1] ?? '', /random.*expected priority, round-robin, least-loaded, fastest/);
    writeFileSync(node.path, '{"loadBalancing":{"enabled":false}}');
    node.clock.advance(1_000);
    assert.equal(node.watch.loadBalancing().enabled, false);
  });

  test('D-15 D-23 a change over HTTP holds at once, is kept in the file, and a flag does not take it back', () => {
    using node = watching(newFile({ name: 'filed' }), { flags: { strategy: ['priority'] } });
    node.watch.set({ strategy: 'round-robin', failoverEnabled: false });
    assert.deepEqual(node.watch.loadBalancing(), {
      enabled: true,
      strategy: 'round-robin',
      failoverEnabled: false,
      midStream: true,
    });
    assert.deepEqual(json(node.path), {
      name: 'filed',
      loadBalancing: { strategy: 'round-robin', failoverEnabled: false },
    });
    editConfig(inputOf(node.path), { name: 'renamed' });
    node.clock.advance(5_000);
    assert.equal(node.watch.loadBalancing().strategy, 'round-robin');
    assert.deepEqual([node.seen.length, node.warnings], [1, []]);
  });

  test('names that stand for models follow the file; a circle among them changes nothing and is said', () => {
    using node = watching(newFile({ models: { aliases: { 'gpt-4o-mini': ['mine'] } } }));
    const chain = (): readonly string[] => node.watch.aliases().chainOf('gpt-4o-mini');
    assert.deepEqual(chain(), ['mine']);
    writeFileSync(node.path, '{"models":{"aliases":{"gpt-4o-mini":["a","other"],"a":["gpt-4o-mini"]}}}');
    node.clock.advance(1_000);
    assert.deepEqual(chain(), ['mine']);
    assert.match(node.warnings.join(), /gpt-4o-mini > a > gpt-4o-mini/);
    editConfig(inputOf(newFile({})), { 'models.aliases': '{"x":["y"]}' });
    writeFileSync(node.path, '{"models":{"aliases":{"gpt-4o-mini":["mine","other"]}}}');
    node.clock.advance(1_000);
    assert.deepEqual(chain(), ['mine', 'other']);
    assert.deepEqual([node.seen.length, node.warnings.length], [0, 1]);
  });

  test('names that stand for models are set as JSON, whole or not at all', () => {
    const path = newFile({});
    editConfig(inputOf(path), { 'models.aliases': '{"gpt-4o-mini":["mine","other"]}' });
    assert.deepEqual(json(path), { models: { aliases: { 'gpt-4o-mini': ['mine', 'other'] } } });
    for (const bad of ['mine', '{"a":[]}', '{"a":"b"}', '{"a":["b"],"b":["a"]}', '["a"]', '{"":["a"]}'])
      assert.throws(() => editConfig(inputOf(path), { 'models.aliases': bad }), { code: 'invalid_request' }, bad);
    assert.deepEqual(json(path), { models: { aliases: { 'gpt-4o-mini': ['mine', 'other'] } } });
  });

  test('a change over HTTP that cannot be kept holds until the node stops, with a warning', () => {
    using node = watching(newFile({}));
    writeFileSync(node.path, '{');
    node.watch.set({ strategy: 'fastest' });
    assert.equal(node.watch.loadBalancing().strategy, 'fastest');
    assert.match(node.warnings.join(), /holds until the node stops/);
  });
});
