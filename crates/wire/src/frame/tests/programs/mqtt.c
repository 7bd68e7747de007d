// MQTT (5.0, 2.1): a byte, and a length of one to four bytes.
struct __sk_buff {
	unsigned fields[19], data, data_end;
};

__attribute__((section("framer"), used)) int mqtt(struct __sk_buff *skb)
{
	unsigned char *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	unsigned length = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (data + i + 2 > end)
			return 0;
		length |= (data[i + 1] & 0x7f) << (7 * i);
		if (!(data[i + 1] & 0x80))
			return i + 2 + length;
	}
	return -1;
}
