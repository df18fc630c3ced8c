/** A node in this process for tests of batches, with an engine without a model unless told otherwise. */
import { rm } from 'node:fs/promises';
import { silentLogger } from '../../node/common/logger.ts';
import { loadConfig } from '../../node/config.ts';
import { MeshNode, type MeshNodeParts } from '../../node/mesh-node.ts';
import type { NodeEvent } from '../../node/node-event.ts';
import { temporaryDir } from './node-process.ts';
import { ScriptedEngine, type ScriptedEngineOptions } from './scripted-engine.ts';

export interface BatchNode {
  readonly api: string;
  readonly dataDir: string;
  readonly events: readonly NodeEvent[];
  /** The last one that was made; null with a real engine. */
  readonly engine: ScriptedEngine | null;
  /** Ends the node and starts it again over the same directory. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export interface BatchNodeOptions extends Partial<Omit<ScriptedEngineOptions, 'fingerprint'>> {
  readonly flags?: Readonly<Record<string, readonly string[]>>;
  /** Instead of a scripted engine the real one. */
  readonly isReal?: boolean;
  /** Called before each start. */
  readonly prepare?: (dataDir: string) => void;
}

export async function startBatchNode(options: BatchNodeOptions = {}): Promise<BatchNode> {
  const { flags = {}, isReal = false, prepare, ...scripted } = options;
  const dataDir = temporaryDir();
  const events: NodeEvent[] = [];
  let engine: ScriptedEngine | null = null;
  let node: MeshNode | null = null;
  let api = '';
  const start = async (): Promise<void> => {
    prepare?.(dataDir);
    const given = {
      'data-dir': [dataDir],
      port: ['0'],
      listen: ['/ip4/127.0.0.1/tcp/0'],
      'no-mdns': ['true'],
      ...flags,
    };
    const { config } = loadConfig({ flags: given, env: {}, cwd: dataDir, home: dataDir, hostName: 'batch' });
    const parts: MeshNodeParts = {
      logger: silentLogger,
      ...(isReal
        ? {}
        : {
            engine: ({ fingerprint }) => {
              engine = new ScriptedEngine({ fingerprint, models: ['m'], tokenDelayMs: 0, ...scripted });
              return engine;
            },
          }),
    };
    node = new MeshNode(config, parts);
    node.onEvent((event) => {
      events.push(event);
      if (event.event === 'ready') api = event.api;
    });
    await node.start();
  };
  await start();
  return {
    get api() {
      return api;
    },
    get engine() {
      return engine;
    },
    dataDir,
    events,
    restart: async () => {
      await node?.stop();
      await start();
    },
    stop: async () => {
      await node?.stop();
      await rm(dataDir, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}
