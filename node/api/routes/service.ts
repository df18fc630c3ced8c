/** `POST /api/v1/node/drain|pause|resume`: whom this node works for from now on. */
import type { FastifyInstance } from 'fastify';
import type { ServiceMode } from '../../routing/service-state.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { SMALL_BODY_BYTES } from '../json-body.ts';

const MODES: Readonly<Record<string, ServiceMode>> = { drain: 'draining', pause: 'paused', resume: 'open' };

/** Adds the three, where there is a state to set. */
export function addServiceRoutes(app: FastifyInstance, { service }: FacadeComponents): void {
  if (service === undefined) return;
  for (const [verb, mode] of Object.entries(MODES)) {
    app.post(`/api/v1/node/${verb}`, { onRequest: requireJson, bodyLimit: SMALL_BODY_BYTES }, async () => {
      service.set(mode);
      return { state: service.mode };
    });
  }
}
