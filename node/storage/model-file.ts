import type { ModelShape } from './gguf-shape.ts';

/** A GGUF file that this node may serve: what the bounded header check and the scan of the disk found out. */
export interface ModelFile {
  /** Model id: the file's stem without shard suffix, or what `--model ID=PATH` says. */
  readonly id: string;
  /** Absolute path of the file; for split files, of the first shard. */
  readonly path: string;
  readonly sizeBytes: number;
  /** sha256 (hex) of the file, null until the background computation is done. */
  readonly digest: string | null;
  readonly architecture: string;
  /** `general.file_type` as a name, for example `F16` or `Q4_K_M`; null where the file does not say. */
  readonly quantization: string | null;
  /** Context the model was trained for, tokens. */
  readonly trainedContext: number;
  /** What its memory needs are computed from. Absent: only its size is known. */
  readonly shape?: ModelShape;
}

/** Where the engine learns which files there are. */
export interface ModelFileSource {
  /** A fresh array at each call; cheap. */
  list(): readonly ModelFile[];
  /** Calls `listener` after each change; returns the unsubscribe. */
  onChange(listener: () => void): () => void;
}
