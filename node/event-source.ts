/** What the parts of a node report, as events for whoever started it. */
import type { EngineEvent } from './backends/backend.ts';
import type { PeerChange } from './network/peer-table.ts';
import type { NodeEvent } from './node-event.ts';

export function engineEvent(event: EngineEvent): NodeEvent {
  const { model } = event;
  if (event.type === 'loading') return { event: 'model_loading', model, fraction: event.fraction };
  if (event.type === 'resident') return { event: 'model_resident', model, loadMs: event.loadMs };
  if (event.type === 'unloaded') return { event: 'model_unloaded', model, reason: event.reason };
  return { event: 'model_failed', model, message: event.message };
}

/** Null for changes that nobody is told of: heartbeats, a moment of silence. */
export function peerEvent({ kind, peer, reason }: PeerChange): NodeEvent | null {
  const { fingerprint, name } = peer;
  const models = peer.models.map((entry) => entry.id);
  if (kind === 'up') return { event: 'peer_up', fingerprint, name, models };
  if (kind === 'models') return { event: 'peer_models', fingerprint, name, models };
  return kind === 'down' ? { event: 'peer_down', fingerprint, name, reason: reason ?? 'lost' } : null;
}
