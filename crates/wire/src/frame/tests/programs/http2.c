// HTTP/2 (RFC 9113, 4.1): 3 bytes of length, and 6 more of the frame's header, which it doesn't count. More than the 16,384 bytes that
// everyone has to take is refused.
struct __sk_buff {
	unsigned fields[19], data, data_end;
};

__attribute__((section("framer"), used)) int http2(struct __sk_buff *skb)
{
	unsigned char *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + 3 > end)
		return 0;
	unsigned length = data[0] << 16 | data[1] << 8 | data[2];
	if (length > 16384)
		return -1;
	return 9 + length;
}
