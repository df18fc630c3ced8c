/** `GET /api/v1/mesh/events`: what happens in the mesh as it happens, as server-sent events, for dashboards and scripts. */
import type { FastifyInstance } from 'fastify';
import { MeshError } from '../../common/errors.ts';
import type { FacadeComponents } from '../components.ts';

/** Followers at once; each holds a connection. */
const MAX_FOLLOWERS = 16;
/** A follower that has this much unread is let go: it would see the past only. */
const MAX_UNREAD_BYTES = 256 * 1024;
/** Shows that the connection lives while nothing happens. */
const COMMENT_MS = 15_000;

/** Adds the route, where the node tells of events. Followers end with the server's connections. */
export function addEventRoutes(app: FastifyInstance, { events, peers, clock }: FacadeComponents): void {
  if (events === undefined) return;
  let followers = 0;
  app.get('/api/v1/mesh/events', async (_request, reply) => {
    if (followers >= MAX_FOLLOWERS) {
      throw new MeshError('overloaded', `${MAX_FOLLOWERS} programs follow the events already.`, { retryAfterMs: 5000 });
    }
    followers += 1;
    reply.hijack();
    const response = reply.raw;
    const send = (text: string): void => {
      response.write(text);
      if (response.writableLength > MAX_UNREAD_BYTES) response.destroy();
    };
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
    // First who is there now, so that a follower needs no second request and misses nothing in between.
    const present = peers().map((peer) => ({ ...peer, models: peer.models.map(({ id }) => id) }));
    send(`event: mesh\ndata: ${JSON.stringify({ peers: present })}\n\n`);
    const unsubscribe = events((event) => send(`event: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`));
    const cancelComments = clock.every(COMMENT_MS, () => send(': nothing new\n\n'));
    response.once('close', () => {
      followers -= 1;
      unsubscribe();
      cancelComments();
    });
  });
}
