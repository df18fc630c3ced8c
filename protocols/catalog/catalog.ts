/** What one node says it serves. TypeBox schemas live in messages.ts; these are the shapes all floors use. */

import type { Boundary } from '../inference/events.ts';

export type ModelState = 'resident' | 'loading' | 'on-disk';

/** One model file that a node can answer with. */
export interface CatalogEntry {
  /** Model id: the file's stem without shard suffix, or what `--model ID=PATH` says. */
  readonly id: string;
  /** Artifact digest: sha256 (hex) of the GGUF, null until computed. */
  readonly digest: string | null;
  /** For example `F16` or `Q4_K_M`; null where the file does not say. */
  readonly quantization: string | null;
  /** Tokens per sequence that this node would give it. */
  readonly contextLength: number;
  readonly sizeBytes: number;
  readonly state: ModelState;
  /** Requests that run at once. */
  readonly slots: number;
  /** Measured generation speed of one stream, null before the first measurement. */
  readonly tokensPerSecond: number | null;
  /** The node hands requests for it on to a server that far away. Absent: it answers them itself. */
  readonly boundary?: Boundary;
}

/** How busy a node is, sent with every heartbeat. */
export interface NodeLoad {
  /** Requests in its engine now. */
  readonly inFlight: number;
  /** Requests waiting for a slot. */
  readonly queued: number;
  /** Milliseconds since the engine last made a step while it has work; 0 when idle. */
  readonly engineAgeMs: number;
  readonly draining: boolean;
}

/** Who a node is, said once per connection. */
export interface NodeHello {
  /** Semantic version of the software. */
  readonly version: string;
  /** What people see. */
  readonly name: string;
  /** Start time of the process, Unix milliseconds: a later epoch replaces everything said before. */
  readonly epoch: number;
  /** llama.cpp build, part of what makes a twin. */
  readonly engineBuild: string;
  /** Multiaddrs of other peers it is connected to: hints to dial, never truth. */
  readonly peerHints: readonly string[];
}
