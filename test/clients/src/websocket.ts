// The WebSocket of browsers and of Node 22; for Node 20 a minimal client of
// RFC 6455: text messages, pings answered, close codes. No extensions.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import type { Duplex } from 'node:stream';

const magic = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

export interface SocketEvents {
  open: Event;
  message: Event & { readonly data: string };
  error: Event & { readonly error?: Error };
  close: Event & { readonly code: number };
}

// Socket is what this client and that of the platform have in common.
export interface Socket extends EventTarget {
  readonly protocol: string;
  addEventListener<K extends keyof SocketEvents>(kind: K, listener: (event: SocketEvents[K]) => void): void;
  addEventListener(kind: string, listener: (event: Event) => void): void;
  send(text: string): void;
  close(code?: number): void;
}

export class MinimalWebSocket extends EventTarget implements Socket {
  protocol = '';
  #socket: Duplex | undefined;
  #pending: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  #ended = false;

  constructor(url: string, protocols: string[] = []) {
    super();
    const target = new URL(url.replace(/^ws/, 'http'));
    const key = randomBytes(16).toString('base64');
    const headers: Record<string, string> = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': key };
    if (protocols.length > 0) headers['Sec-WebSocket-Protocol'] = protocols.join(', ');
    const request = (target.protocol === 'https:' ? https : http).get(target, { headers });
    request.on('error', (error) => this.#fail(error));
    request.on('response', (response) => {
      response.destroy();
      this.#fail(new Error(`no upgrade: status ${response.statusCode}`));
    });
    request.on('upgrade', (response, socket, head) => {
      if (response.headers['sec-websocket-accept'] !== createHash('sha1').update(key + magic).digest('base64')) {
        socket.destroy();
        this.#fail(new Error('wrong accept'));
        return;
      }
      this.protocol = response.headers['sec-websocket-protocol'] ?? '';
      this.#open(socket, head);
    });
  }

  override addEventListener<K extends keyof SocketEvents>(kind: K, listener: (event: SocketEvents[K]) => void): void;
  override addEventListener(kind: string, listener: (event: Event) => void): void;
  override addEventListener(kind: string, listener: (event: Event) => void): void {
    super.addEventListener(kind, listener);
  }

  send(text: string): void {
    this.#write(1, Buffer.from(text));
  }

  close(code = 1000): void {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#write(8, payload);
  }

  #open(socket: Duplex, head: Buffer): void {
    this.#socket = socket;
    socket.on('data', (data: Buffer) => this.#take(data));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#closed(1006));
    this.dispatchEvent(new Event('open'));
    if (head.length > 0) this.#take(head);
  }

  #fail(error: Error): void {
    this.dispatchEvent(Object.assign(new Event('error'), { error }));
    this.#closed(1006);
  }

  #closed(code: number): void {
    if (this.#ended) return;
    this.#ended = true;
    this.dispatchEvent(Object.assign(new Event('close'), { code }));
  }

  #write(opcode: number, payload: Buffer): void {
    if (this.#socket === undefined) throw new Error('the socket is not open');
    const size = payload.length < 126 ? Buffer.from([0x80 | payload.length]) : Buffer.from([0xfe, payload.length >> 8, payload.length & 255]);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload);
    for (let i = 0; i < masked.length; i += 1) masked.writeUInt8(masked.readUInt8(i) ^ mask.readUInt8(i % 4), i);
    this.#socket.write(Buffer.concat([Buffer.from([0x80 | opcode]), size, mask, masked]));
  }

  #take(data: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, data]);
    for (;;) {
      const b = this.#pending;
      if (b.length < 2) return;
      let [start, size] = [2, b.readUInt8(1) & 127];
      if (size === 126 && b.length >= 4) [start, size] = [4, b.readUInt16BE(2)];
      else if (size === 127 && b.length >= 10) [start, size] = [10, Number(b.readBigUInt64BE(2))];
      else if (size > 125) return;
      if (b.length < start + size) return;
      this.#pending = b.subarray(start + size);
      this.#frame(b.readUInt8(0), b.subarray(start, start + size));
    }
  }

  #frame(first: number, payload: Buffer): void {
    const opcode = first & 15;
    if (opcode === 8) {
      this.#write(8, payload.subarray(0, 2));
      this.#socket?.end();
      this.#closed(payload.length >= 2 ? payload.readUInt16BE(0) : 1005);
    } else if (opcode === 9) {
      this.#write(10, payload);
    } else if (opcode <= 2) {
      this.#parts.push(payload);
      if ((first & 0x80) === 0) return;
      const data = Buffer.concat(this.#parts.splice(0)).toString('utf8');
      this.dispatchEvent(Object.assign(new Event('message'), { data }));
    }
  }
}

// The types are those of Node 22; Node 20 has no WebSocket.
const platform: (new (url: string, protocols?: string[]) => Socket) | undefined = globalThis.WebSocket;
export const WebSocket = platform ?? MinimalWebSocket;
