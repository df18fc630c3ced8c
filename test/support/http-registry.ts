/** A registry of HTTP nodes that never changes, without keys and without a file. */
import type { HttpNodesComponents } from '../../node/backends/openai-http/http-nodes.ts';
import type { RemoteNode } from '../../node/storage/remote-node.ts';
import type { Boundary } from '../../protocols/inference/events.ts';

export interface ListedServer {
  /** Its fingerprint is `api:` and this. */
  readonly name: string;
  readonly url: string;
  readonly priority?: number;
  /** Default `public`. */
  readonly boundary?: Boundary;
}

/** For `HttpNodes`. */
export function httpRegistry(servers: readonly ListedServer[]): HttpNodesComponents['registry'] {
  const unsaid = { shared: false, manifest: null, keyEnv: null, hasKey: false, origin: 'registry' } as const;
  const nodes = servers.map(
    ({ name, url, priority = 0, boundary = 'public' }): RemoteNode => ({
      ...unsaid,
      fingerprint: `api:${name}`,
      name,
      url,
      priority,
      boundary,
    }),
  );
  return { list: () => nodes, keyOf: () => null, onChange: () => () => {} };
}
