// The WebSocket of browsers and of Node 22; for Node 20 a minimal client of
// RFC 6455: text messages, pings answered, close codes. No extensions.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';

const magic = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

class MinimalWebSocket extends EventTarget {
  protocol = '';
  #socket;
  #pending = Buffer.alloc(0);
  #parts = [];

  constructor(url, protocols = []) {
    super();
    const target = new URL(url.replace(/^ws/, 'http'));
    const key = randomBytes(16).toString('base64');
    const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': key };
    if ([protocols].flat().length > 0) headers['Sec-WebSocket-Protocol'] = [protocols].flat().join(', ');
    const request = (target.protocol === 'https:' ? https : http).get(target, { headers });
    request.on('response', (response) => this.#fail(new Error(`no upgrade: status ${response.statusCode}`), response.destroy()));
    request.on('error', (error) => this.#fail(error));
    request.on('upgrade', (response, socket, head) => {
      const accept = createHash('sha1').update(key + magic).digest('base64');
      if (response.headers['sec-websocket-accept'] !== accept) return this.#fail(new Error('wrong accept'), socket.destroy());
      this.protocol = response.headers['sec-websocket-protocol'] ?? '';
      this.#socket = socket;
      socket.on('data', (data) => this.#take(data));
      socket.on('error', () => socket.destroy());
      socket.on('close', () => this.#closed(1006));
      this.dispatchEvent(new Event('open'));
      if (head.length > 0) this.#take(head);
    });
  }

  send(text) {
    this.#write(1, Buffer.from(text));
  }

  close(code = 1000) {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    this.#write(8, payload);
  }

  #fail(error) {
    this.dispatchEvent(Object.assign(new Event('error'), { error }));
    this.#closed(1006);
  }

  #closed(code) {
    if (this.closeCode !== undefined) return;
    this.closeCode = code;
    this.dispatchEvent(Object.assign(new Event('close'), { code }));
  }

  #write(opcode, payload) {
    const size = payload.length < 126 ? Buffer.from([0x80 | payload.length]) : Buffer.from([0xfe, payload.length >> 8, payload.length & 255]);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload.map((byte, i) => byte ^ mask[i % 4]));
    this.#socket.write(Buffer.concat([Buffer.from([0x80 | opcode]), size, mask, masked]));
  }

  #take(data) {
    this.#pending = Buffer.concat([this.#pending, data]);
    for (;;) {
      const b = this.#pending;
      if (b.length < 2) return;
      let [start, size] = [2, b[1] & 127];
      if (size === 126 && b.length >= 4) [start, size] = [4, b.readUInt16BE(2)];
      else if (size === 127 && b.length >= 10) [start, size] = [10, Number(b.readBigUInt64BE(2))];
      else if (size > 125) return;
      if (b.length < start + size) return;
      this.#pending = b.subarray(start + size);
      this.#frame(b[0], b.subarray(start, start + size));
    }
  }

  #frame(first, payload) {
    const opcode = first & 15;
    if (opcode === 9) return this.#write(10, payload);
    if (opcode === 8) {
      this.#write(8, payload.subarray(0, 2));
      this.#socket.end();
      return this.#closed(payload.length >= 2 ? payload.readUInt16BE(0) : 1005);
    }
    if (opcode > 2) return undefined;
    this.#parts.push(payload);
    if ((first & 0x80) === 0) return undefined;
    const text = Buffer.concat(this.#parts.splice(0)).toString('utf8');
    return this.dispatchEvent(Object.assign(new Event('message'), { data: text }));
  }
}

export const WebSocket = globalThis.WebSocket ?? MinimalWebSocket;
export { MinimalWebSocket };
